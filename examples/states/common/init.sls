# What every machine has, whatever it is for.
/etc/motd:
  file.managed:
    - source: salt://common/motd.jinja
    - template: jinja

ops:
  user.present:
    - shell: /bin/bash
    - groups: [adm]

journal stays small:
  file.managed:
    - name: /etc/systemd/journald.conf.d/size.conf
    - makedirs: True
    - contents: |
        [Journal]
        SystemMaxUse=64M

systemd-journald:
  service.running:
    - watch:
      - file: journal stays small
