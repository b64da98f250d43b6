touch:
  salt.function:
    - name: cmd.run
    - tgt: {{ pillar['target'] }}
    - arg: [touch /var/lib/marked]
