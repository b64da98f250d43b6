base:
  '*_master':
    - immutable
  'web-*':
    - web
  'shop-*':
    - shop
  'formula-*':
    - formula
  'outside-*':
    - encrypted
    - stored
  'vault-*':
    - vault
  'fort-*':
    - fort
  'tested-*':
    - tested
