# What needs a kernel of its own while it bakes, and what is left of it in the image.
procps:
  pkg.installed: []

kmod:
  pkg.installed: []

vm.max_map_count:
  sysctl.present:
    - value: 262144
    - require:
      - pkg: procps

it is set in the kernel that runs:
  cmd.run:
    - name: test "$(cat /proc/sys/vm/max_map_count)" = 262144 && echo set >/etc/set-while-it-baked
    - creates: /etc/set-while-it-baked
    - require:
      - sysctl: vm.max_map_count

dummy:
  kmod.present:
    - require:
      - pkg: kmod

the module is loaded:
  cmd.run:
    - name: test -d /sys/module/dummy && echo loaded >/etc/loaded-while-it-baked
    - creates: /etc/loaded-while-it-baked
    - require:
      - kmod: dummy

/etc/systemd/system/only-here.service:
  file.managed:
    - contents: |
        [Unit]
        ConditionVirtualization=!container
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/bin/sh -c 'echo ran >/var/lib/only-here'
        [Install]
        WantedBy=multi-user.target

only-here:
  service.running:
    - enable: True
    - require:
      - file: /etc/systemd/system/only-here.service

/srv/tools:
  file.directory:
    - mode: '2750'

/etc/motd:
  file.absent: []

nftables:
  pkg.installed: []
  service.enabled:
    - require:
      - file: /etc/nftables.conf

/etc/nftables:
  file.directory: []

/etc/nftables.conf:
  file.managed:
    - mode: '0755'
    - contents: |
        #!/usr/sbin/nft -f
        flush ruleset
        include "/etc/nftables/*.nft"
    - require:
      - pkg: nftables

filter:
  nftables.table_present:
    - require:
      - service: nftables

input:
  nftables.chain_present:
    - table: filter
    - table_type: filter
    - hook: input
    - priority: 0
    - require:
      - nftables: filter

ssh is let in:
  nftables.append:
    - table: filter
    - chain: input
    - proto: tcp
    - dport: 22
    - jump: accept
    - save: True
    - require:
      - file: /etc/nftables
      - nftables: input
