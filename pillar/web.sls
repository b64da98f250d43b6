web:
  version: '1'
