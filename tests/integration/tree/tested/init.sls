/etc/tested:
  file.managed:
    - contents: {{ pillar['tested']['says'] }}
