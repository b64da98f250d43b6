# A firewall as teams write it: a service with rules of its own, a file, and rules that states save.
nftables:
  pkg.installed: []

/etc/nftables:
  file.directory: []

/etc/nftables.conf:
  file.managed:
    - mode: '0755'
    - contents: |
        #!/usr/sbin/nft -f
        flush ruleset
        table inet wall {
          chain input {
            type filter hook input priority 0; policy accept;
            tcp dport 2222 drop
          }
        }
        include "/etc/nftables/*.nft"
    - require:
      - pkg: nftables

filter:
  nftables.table_present:
    - family: ipv4
    - require:
      - pkg: nftables

input:
  nftables.chain_present:
    - family: ipv4
    - table: filter
    - table_type: filter
    - hook: input
    - priority: 0
    - require:
      - nftables: filter

no telnet:
  nftables.append:
    - family: ipv4
    - table: filter
    - chain: input
    - proto: tcp
    - dport: 23
    - jump: drop
    - save: True
    - require:
      - nftables: input
      - file: /etc/nftables

running:
  service.running:
    - name: nftables
    - enable: True
    - watch:
      - file: /etc/nftables.conf
