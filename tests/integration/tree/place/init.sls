# Where and on which network machines are: the live part of each of these needs more than a container has.
ifupdown:
  pkg.installed:
    - pkgs: [ifupdown, locales, tzdata]

Europe/Berlin:
  timezone.system:
    - require:
      - pkg: ifupdown

generated:
  locale.present:
    - name: de_DE.UTF-8
    - require:
      - pkg: ifupdown

language:
  locale.system:
    - name: de_DE.UTF-8
    - require:
      - locale: generated

eth9:
  network.managed:
    - type: eth
    - proto: static
    - ipaddr: 10.9.8.7
    - netmask: 255.255.255.0
    - require:
      - pkg: ifupdown

hello:
  pkg.installed:
    - require:
      - network: eth9
