base:
  '*_master':
    - immutable
  'web-*':
    - web
  'shop-*':
    - shop
  'formula-*':
    - formula
  'vault-*':
    - vault
  'fort-*':
    - fort
  'tested-*':
    - tested
