{% set vault = pillar['vault'] %}
/srv/data:
  file.directory

/etc/vault.conf:
  file.managed:
    - contents: |
        version = {{ vault['version'] }}
        {% if vault['leaks'] %}password = {{ vault['db']['password'] }}{% endif %}

/etc/systemd/system/vault.service:
  file.managed:
    - contents: |
        [Service]
        EnvironmentFile=/run/secrets/vault.env
        ExecStart=/bin/sh -c 'echo "$PASSWORD" > /srv/data/seen; exec sleep infinity'
