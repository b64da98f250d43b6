openssh-server:
  pkg.installed

/etc/ssh/sshd_config.d/team.conf:
  file.managed:
    - contents: 'PasswordAuthentication no'
    - require:
      - pkg: openssh-server

ssh:
  service.running:
    - enable: True
    - watch:
      - file: /etc/ssh/sshd_config.d/team.conf
