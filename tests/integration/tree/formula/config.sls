{%- set tplroot = tpldir.split('/')[0] %}
{%- from tplroot ~ '/map.jinja' import formula with context %}
{%- from tplroot ~ '/libtofs.jinja' import files_switch with context %}

formula-config-site:
  file.managed:
    - name: /etc/nginx/sites-enabled/default
    - follow_symlinks: False
    - source: {{ files_switch(['site.conf.jinja']) }}
    - template: jinja
    - context: {formula: {{ formula | json }}, tplroot: {{ tplroot }}}
    - require:
      - sls: {{ tplroot }}.package

formula-config-root:
  file.recurse:
    - name: {{ formula.root }}
    - source: salt://{{ tplroot }}/files/default/site
    - clean: True
    - template: jinja
    - file_mode: keep

formula-config-hosts:
  file.managed:
    - name: /etc/hosts.allow
    - replace: False

formula-config-block:
  file.blockreplace:
    - name: /etc/hosts.allow
    - marker_start: '# begin formula'
    - marker_end: '# end formula'
    - append_if_not_found: True
    - show_changes: False
    - require:
      - file: formula-config-hosts

formula-config-line:
  file.accumulated:
    - name: allowed
    - filename: /etc/hosts.allow
    - text: 'ALL: 127.0.0.1'
    - require_in:
      - file: formula-config-block

formula-config-ini:
  file.serialize:
    - name: /etc/formula.json
    - dataset_pillar: formula
    - serializer: json

formula-config-keyvalue:
  file.keyvalue:
    - name: /etc/default/cron
    - key_values: {EXTRA_OPTS: '"-L 2"'}
    - append_if_not_found: True

{% for name in ('one', 'two') %}
/etc/formula.d/{{ name }}:
  file.managed:
    - contents: {{ name }}
    - makedirs: True
    - order: {{ loop.index * 100 }}
{% endfor %}

formula-config-absent:
  file.absent:
    - names: [/etc/formula.d/old, /etc/formula.d/older]

formula-config-symlink:
  file.symlink:
    - name: /etc/formula.current
    - target: /etc/formula.d/two

formula-config-mode:
  file.directory:
    - name: /var/lib/formula
    - user: www-data
    - group: www-data
    - dir_mode: '2750'
    - require:
      - pkg: formula-package-installed

formula-config-acl:
  acl.present:
    - name: /var/lib/formula
    - acl_type: user
    - acl_name: nobody
    - perms: rx
    - require:
      - file: formula-config-mode
