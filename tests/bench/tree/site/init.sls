# nginx and a file.
nginx:
  pkg.installed:
    - name: nginx-light

/srv/site/index.html:
  file.managed:
    - source: salt://site/index.html.jinja
    - template: jinja
    - makedirs: True
