{% from 'shop/map.jinja' import shop with context %}
include:
  - shop.users

{{ shop.root }}:
  file.recurse:
    - source: salt://shop/files/assets
    - user: shop
    - group: shop
    - file_mode: '0640'
    - dir_mode: '0750'
    - require:
      - user: shop

/etc/systemd/system/shop.service:
  file.managed:
    - source: salt://shop/files/shop.service.jinja
    - template: jinja
    - context: {root: {{ shop.root }}, port: {{ shop.port }}}

systemctl daemon-reload:
  cmd.run:
    - onchanges:
      - file: /etc/systemd/system/shop.service

shop:
  service.running:
    - enable: True
    - watch:
      - file: {{ shop.root }}
      - file: /etc/systemd/system/shop.service
