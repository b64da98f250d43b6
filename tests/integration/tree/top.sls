base:
  '*':
    - common
  'roles:shop':
    - match: grain
    - shop
  'G@shop_tier:front and shop-*':
    - match: compound
    - shop.front
  'shop-*':
    - ssh
