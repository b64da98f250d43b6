# 30 packages and 200 files.
packages:
  pkg.installed:
    - pkgs:
      - bzip2
      - curl
      - dnsutils
      - file
      - gawk
      - htop
      - iputils-ping
      - jq
      - less
      - logrotate
      - lsof
      - make
      - nano
      - netcat-openbsd
      - nginx-light
      - openssl
      - patch
      - rsync
      - screen
      - socat
      - sqlite3
      - strace
      - tcpdump
      - tmux
      - traceroute
      - tree
      - unzip
      - vim-tiny
      - wget
      - zip

{% for number in range(200) %}
/etc/heavy/{{ number }}.conf:
  file.managed:
    - source: salt://heavy/{{ number }}.conf.jinja
    - template: jinja
    - makedirs: True
{% endfor %}
