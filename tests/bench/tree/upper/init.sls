/srv/upper/index.html:
  file.managed:
    - source: salt://upper/index.html.jinja
    - template: jinja
    - makedirs: True
