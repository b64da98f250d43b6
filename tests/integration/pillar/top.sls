base:
  '*_master':
    - immutable
  'web-*':
    - web
  'shop-*':
    - shop
  'vault-*':
    - vault
  'fort-*':
    - fort
  'tested-*':
    - tested
