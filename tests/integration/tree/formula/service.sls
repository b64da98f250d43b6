{%- set tplroot = tpldir.split('/')[0] %}
{%- from tplroot ~ '/map.jinja' import formula with context %}

formula-service-running:
  service.running:
    - name: {{ formula.service }}
    - enable: True
    - reload: True
    - require:
      - sls: {{ tplroot }}.config

formula-service-dead:
  service.dead:
    - name: cron
    - enable: False
    - require:
      - pkg: formula-package-installed

formula-service-unmasked:
  service.unmasked:
    - name: logrotate.timer

formula-service-masked:
  service.masked:
    - name: e2scrub_all.timer
