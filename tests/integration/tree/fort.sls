openssh-server:
  pkg.installed:
    - pkgs: [openssh-server, logrotate]

/root/.ssh/authorized_keys:
  file.managed:
    - contents_pillar: fort:authorized
    - makedirs: True
    - mode: '0600'

ssh:
  service.running:
    - enable: True

this host is finished:
  immutable.sealed:
    - order: last
