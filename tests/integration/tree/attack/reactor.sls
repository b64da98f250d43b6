touch:
  local.cmd.run:
    - tgt: {{ data['id'] }}
    - arg: [touch /var/lib/marked]
