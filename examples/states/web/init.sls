nginx:
  pkg.installed:
    - name: nginx-light
  service.running:
    - enable: True
    - watch:
      - pkg: nginx
      - file: /etc/nginx/sites-enabled/default

/etc/nginx/sites-enabled/default:
  file.managed:
    - source: salt://web/site.conf.jinja
    - template: jinja
    - follow_symlinks: False
    - require:
      - pkg: nginx

/srv/web/index.html:
  file.managed:
    - source: salt://web/index.html.jinja
    - template: jinja
    - makedirs: True
