immutable:
  recipes:
    base:
      from:
        debian: bookworm
        packages: [systemd-sysv, dbus, iproute2, python3, ca-certificates]
    web:
      from: {recipe: base}
      bake_id: web-bake.example.com
      grains: {roles: [web]}
      states: highstate
  fleets:
    web:
      recipe: web
      size: 3
      minion_id: 'web-{token}.example.com'
      provider: {name: nspawn}
      strategy: {max_surge: 1}
      health:
        - {fun: service.status, args: [nginx]}
        - {http: 'http://{address}/'}
