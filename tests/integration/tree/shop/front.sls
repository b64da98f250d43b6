/etc/shop-front:
  file.managed:
    - contents: |
        region {{ pillar['shop']['region'] }}
        motto {{ salt['shopinfo.motto']() }}
        tier {{ grains['shop_tier'] }}
