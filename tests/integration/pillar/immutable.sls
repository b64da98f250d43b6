immutable:
  recipes:
    base:
      from:
        debian: bookworm
        packages: [systemd-sysv, dbus, iproute2, python3, ca-certificates]
    web:
      from: {recipe: base}
      bake_id: web-bake.tests.example.com
      states: [web]
      exec: [/var/lib/tool]
      limits: {nginx.service: {memory: 128M, tasks: 60}}
    writable:
      from: {recipe: base}
      read_only: false
    small:
      from: {recipe: base}
      bake_id: web-small.tests.example.com
      states: [small]
    bootable:
      from:
        debian: bookworm
        packages: [systemd-sysv, dbus, iproute2, python3, ca-certificates, linux-image-cloud-amd64, systemd-boot-efi]
      bake_id: web-bootable.tests.example.com
      states: [small]
      writable: [/srv]
    virtual:
      from: {recipe: bootable}
      bake_id: web-virtual.tests.example.com
      bake_in: vm
      assume_stable: true
      states: [virtual]
      tests:
        inside:
          - {module_and_function: sysctl.get, args: [vm.max_map_count], assertion: assertEqual, expected: '262144'}
        vm:
          - {module_and_function: sysctl.get, args: [vm.max_map_count], assertion: assertEqual, expected: '262144'}
          - {module_and_function: service.status, args: [only-here], assertion: assertTrue}
          - {module_and_function: file.file_exists, args: [/var/lib/only-here], assertion: assertTrue}
          - {module_and_function: immutable.status, assertion: assertTrue, assertion_section: sealed}
          - {module_and_function: cmd.run, args: [nft list ruleset], assertion: assertIn, expected: tcp dport 22 accept}
    older:
      from:
        debian: bookworm
        packages: [systemd-sysv, dbus, iproute2, python3, ca-certificates]
      minion: {pip: 'salt==3007.*'}
      bake_id: older-bake.tests.example.com
    repository:
      from: {recipe: base}
      bake_id: web-repository.tests.example.com
      states: [repository]
      assume_stable: true
      tests: {inside: [{saltcheck: true}], idempotent: true}
    old:
      from: {recipe: older}
      bake_id: web-old.tests.example.com
      states: [small]
    fort:
      from: {recipe: web}
      bake_id: fort-bake.tests.example.com
      states: [fort]
      guard: {returners: [rawfile_json]}
    broken:
      from: {recipe: base}
      bake_id: web-broken.tests.example.com
      states: [broken]
    tested:
      from: {recipe: base}
      bake_id: tested-bake.tests.example.com
      states: [tested]
      tests:
        inside:
          - saltcheck: true
          - {name: the tree's pillar is seen, module_and_function: pillar.keys, args: [tested],
             assertion: assertIn, expected: says}
        booted:
          - {name: nothing is broken, module_and_function: file.contains, args: [/etc/tested, broken],
             assertion: assertFalse}
          - {name: its minion runs, module_and_function: service.status, args: [salt-minion], assertion: assertTrue}
          - {name: its root is read-only, module_and_function: cmd.retcode, args: [touch /etc/touched],
             assertion: assertEqual, expected: 1}
    vault:
      from: {recipe: base}
      bake_id: vault-bake.tests.example.com
      states: [vault]
      at_launch: [vault.launch]
      writable: [/srv/data]
      secrets: ['vault:*:password']
    vault-open:
      from: {recipe: vault}
      read_only: false
    shop:
      from: {recipe: base}
      bake_id: shop-bake.tests.example.com
      grains: {roles: [shop]}
      states: highstate
    kernel:
      from: {recipe: base}
      bake_id: kernel-bake.tests.example.com
      states: [kernel]
      assume_stable: true
      at_boot: [cron]
      tests: {idempotent: true}
    place:
      from: {recipe: base}
      bake_id: place-bake.tests.example.com
      states: [place]
    formula:
      from: {recipe: base}
      bake_id: formula-bake.tests.example.com
      states: [formula]
      tests: {idempotent: noted}
    wall:
      from: {recipe: base}
      bake_id: wall-bake.tests.example.com
      states: [wall]
    outside:
      from: {recipe: base}
      bake_id: outside-bake.tests.example.com
      states: [outside]
      secrets: [token, stored, later]
    wanting:
      from: {recipe: base}
      bake_id: outside-wanting.tests.example.com
      states: [outside.wanting]
    restless:
      from: {recipe: base}
      bake_id: restless-bake.tests.example.com
      states: [restless]
      tests: {idempotent: true}
  fleets:
    virtual:
      recipe: virtual
      size: 1
      minion_id: 'virtual-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 60s}
    kernel:
      recipe: kernel
      size: 1
      minion_id: 'kernel-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 60s}
    wall:
      recipe: wall
      size: 1
      minion_id: 'wall-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M, capabilities: [CAP_NET_ADMIN]}
      strategy: {max_surge: 1, ready_within: 60s}
    open:
      recipe: wall
      size: 1
      minion_id: 'open-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 60s}
    formula:
      recipe: formula
      size: 1
      minion_id: 'formula-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 60s}
    web:
      recipe: web
      size: 3
      minion_id: 'web-{token}.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 15s}
      health:
        - {fun: service.status, args: [nginx]}
        - {http: 'http://{address}/'}
    shop:
      recipe: shop
      size: 1
      minion_id: 'shop-{token}.example.com'
      provider: {name: nspawn}
      strategy: {max_surge: 1, ready_within: 30s}
    vault:
      recipe: vault
      size: 1
      minion_id: 'vault-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 30s}
    vault-open:
      recipe: vault-open
      size: 1
      minion_id: 'vault-open-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 30s}
    tested:
      recipe: tested
      size: 1
      minion_id: 'tested-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
    small:
      recipe: small
      size: 1
      minion_id: 'small-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 30s}
    fort:
      recipe: fort
      size: 1
      minion_id: 'fort-{token}.tests.example.com'
      provider: {name: nspawn, memory: 768M}
      strategy: {max_surge: 1, ready_within: 60s}
    old:
      recipe: old
      size: 1
      minion_id: 'web-old-{token}.tests.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 1, ready_within: 60s}
