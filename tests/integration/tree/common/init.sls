{% from 'common/map.jinja' import common with context %}
common packages:
  pkg.installed:
    - pkgs: {{ common.packages | json }}

Europe/Berlin:
  timezone.system:
    - require:
      - pkg: common packages

{{ common.cron }}:
  service.running:
    - enable: True
    - require:
      - pkg: common packages

nightly report:
  cron.present:
    - name: /usr/local/bin/report
    - user: root
    - hour: 3
    - minute: 17
    - require:
      - pkg: common packages

database.internal:
  host.present:
    - ip: 10.99.0.7

/etc/salt/minion.d/team.conf:
  file.managed:
    - contents: 'log_level: info'

salt-minion:
  service.running:
    - enable: True
    - watch:
      - file: /etc/salt/minion.d/team.conf
