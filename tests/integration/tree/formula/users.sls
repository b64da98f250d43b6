{%- set formula = salt['pillar.get']('formula', {}) %}
{%- for name, user in salt['pillar.get']('formula:users', {}).items() %}
formula-group-{{ name }}:
  group.present:
    - name: {{ name }}
    - gid: {{ user.uid }}

formula-user-{{ name }}:
  user.present:
    - name: {{ name }}
    - uid: {{ user.uid }}
    - gid: {{ user.uid }}
    - shell: /bin/bash
    - home: /home/{{ name }}
    - groups: {{ user.get('groups', []) | json }}
    - optional_groups: [docker]
    - password: not so secret
    - hash_password: True
    - require:
      - group: formula-group-{{ name }}

formula-key-{{ name }}:
  ssh_auth.present:
    - user: {{ name }}
    - names: {{ user.get('keys', []) | json }}
    - require:
      - user: formula-user-{{ name }}

formula-host-{{ name }}:
  ssh_known_hosts.present:
    - name: git.internal
    - user: {{ name }}
    - enc: ssh-ed25519
    - key: AAAAC3NzaC1lZDI1NTE5AAAAIPgJmO4LXf1Hh3rAJ3Tf0dWUpDSWGzyAKcYkrc9OrAsW
    - require:
      - user: formula-user-{{ name }}
      - pkg: formula-package-installed

formula-cron-{{ name }}:
  cron.present:
    - name: /usr/bin/true
    - identifier: {{ name }}-true
    - user: {{ name }}
    - minute: 5
    - require:
      - user: formula-user-{{ name }}
      - pkg: formula-package-installed

formula-sudo-{{ name }}:
  file.managed:
    - name: /etc/sudoers.d/{{ name }}
    - mode: '0440'
    - makedirs: True
    - contents: '{{ name }} ALL=(ALL) NOPASSWD: ALL'
{%- endfor %}
