/etc/fine:
  file.touch

the database is reachable:
  cmd.run:
    - name: 'echo no route to the database >&2; exit 7'
