{%- set tplroot = tpldir.split('/')[0] %}
{%- from tplroot ~ '/map.jinja' import formula with context %}

formula-package-installed:
  pkg.installed:
    - pkgs: [{{ formula.package }}, cron, logrotate, locales, debconf-utils, acl, git, openssh-client]

formula-debconf:
  debconf.set:
    - name: man-db
    - data:
        'man-db/auto-update': {'type': 'boolean', 'value': false}
    - require:
      - pkg: formula-package-installed

formula-package-gone:
  pkg.purged:
    - name: nano
