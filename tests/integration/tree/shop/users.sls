{% from 'shop/map.jinja' import shop with context %}
shop group:
  group.present:
    - name: shop
    - gid: 4000

shop user:
  user.present:
    - name: shop
    - uid: 4000
    - gid: shop
    - home: /var/lib/shop
    - require:
      - group: shop group

{% for name, user in shop.users.items() %}
{{ name }}:
  user.present:
    - uid: {{ user.uid }}
    - groups: [shop]
    - shell: /bin/bash
    - require:
      - group: shop group
  ssh_auth.present:
    - user: {{ name }}
    - enc: ssh-ed25519
    - name: {{ user.key }}
    - require:
      - user: {{ name }}
{% endfor %}
