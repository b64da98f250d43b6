openssh-server:
  pkg.installed

/root/.ssh/authorized_keys:
  file.managed:
    - contents_pillar: fort:authorized
    - makedirs: True
    - mode: '0600'

ssh:
  service.running:
    - enable: True
