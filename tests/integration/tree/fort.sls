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

# What an image sets itself; the guard refuses it anyway.
/etc/salt/minion.d/startup.conf:
  file.managed:
    - contents: 'startup_states: highstate'
    - makedirs: True

this host is finished:
  immutable.sealed:
    - order: last
