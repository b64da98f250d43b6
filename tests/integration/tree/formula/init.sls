include:
  - .package
  - .config
  - .service
  - .users
  - .requisites
  - .places
  - formula.python
  - formula.objects
  - formula.custom

extend:
  formula-service-running:
    service:
      - watch:
        - file: formula-config-site
