{% set vault = pillar['vault'] %}
/run/secrets/vault.env:
  file.managed:
    - contents: 'PASSWORD={{ vault['db']['password'] }}'
    - mode: '0600'
    - makedirs: True
    - show_changes: False

vault:
  service.running:
    - watch:
      - file: /run/secrets/vault.env

/run/peers:
  file.managed:
    - contents: '{{ salt['mine.get']('vault-*', 'test.echo') | json }}'

{% for path in vault['written'] %}
{{ path }}:
  file.managed:
    - contents: by {{ grains['id'] }}
    - makedirs: True
{% endfor %}

{% if vault['slow'] %}
settle: {cmd.run: [{name: 'sleep {{ vault['slow'] }}'}]}
{% endif %}

{% if vault['fails'] %}
the vault opens: {test.fail_without_changes: [{comment: 'the vault does not know this machine'}]}
{% endif %}
