this host is finished:
  immutable.sealed:
    - mutable: [/srv/uploads]
    - order: last
