# What no container can do while it bakes: the host's kernel, devices, services that need them.
procps:
  pkg.installed: []

vm.max_map_count:
  sysctl.present:
    - value: 262144
    - require:
      - pkg: procps

net.core.somaxconn:
  sysctl.present:
    - value: 4321
    - require:
      - pkg: procps

net.core.rmem_max:
  sysctl.present:
    - value: 4194305
    - require:
      - pkg: procps

/etc/sysctl.d/70-own.conf:
  file.managed:
    - contents: vm.dirty_ratio = 21

apply it:
  cmd.run:
    - name: sysctl --system
    - onchanges:
      - file: /etc/sysctl.d/70-own.conf
    - require:
      - pkg: procps

the clock of the builder is left alone:
  cmd.run:
    - name: "! date --set=now && touch /etc/clock-left-alone"
    - creates: /etc/clock-left-alone

dummy:
  kmod.present:
    - persist: True

/swapfile:
  mount.swap: []

/srv/data:
  mount.mounted:
    - device: /dev/vdb1
    - fstype: ext4
    - mkmnt: True

{% for package in ('chrony', 'apparmor', 'qemu-guest-agent', 'cron') %}
{{ package }}:
  pkg.installed: []
  service.running:
    - enable: True
    - require:
      - pkg: {{ package }}
{% endfor %}

/etc/chrony/conf.d/pool.conf:
  file.managed:
    - contents: pool time.example.com iburst
    - require:
      - pkg: chrony
    - watch_in:
      - service: chrony

banner:
  file.managed:
    - name: /etc/issue.net
    - contents: "{{ grains['id'] }}, {{ grains['host'] }}"
