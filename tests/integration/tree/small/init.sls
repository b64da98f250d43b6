/etc/small:
  file.managed:
    - contents: 'version {{ pillar['web']['version'] }}'
