nginx-light:
  pkg.installed

/etc/nginx/sites-enabled/default:
  file.managed:
    - follow_symlinks: False
    - contents: |
        server {
            listen 80 default_server;
            location / { return {{ pillar['web']['status'] }} "version {{ pillar['web']['version'] }}\n"; }
        }
    - require:
      - pkg: nginx-light

nginx:
  service.running:
    - enable: True
    - watch:
      - file: /etc/nginx/sites-enabled/default

/var/lib/tool:
  file.directory
