{% set region = 'north' if grains['os'] == 'Debian' else 'south' %}
shop:
  region: {{ region }}
  port: 8080
  users:
    ada: {uid: 4001, key: AAAAC3NzaC1lZDI1NTE5AAAAIDYg0pQzC5qz1i1f1m3Yy2m6bJx7j1p2n3q4r5s6t7u8}
    bob: {uid: 4002, key: AAAAC3NzaC1lZDI1NTE5AAAAIDYg0pQzC5qz1i1f1m3Yy2m6bJx7j1p2n3q4r5s6t7u9}
