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
      # Machines of this fleet are up within seconds: one that is not after 15 has failed.
      strategy: {max_surge: 1, ready_within: 15s}
      health:
        - {fun: service.status, args: [nginx]}
        - {http: 'http://{address}/'}
      # HAProxy sends the visitors: docs/traffic.md says what it needs. make demo has one of its own.
      # traffic: {haproxy: {socket: /run/haproxy/admin.sock, backend: web}}
