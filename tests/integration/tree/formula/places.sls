formula-locale:
  locale.present:
    - name: de_DE.UTF-8

formula-timezone:
  timezone.system:
    - name: Europe/Berlin

formula-host:
  host.present:
    - ip: 10.9.8.7
    - names: [db.internal, db]

formula-environment:
  environ.setenv:
    - name: FORMULA
    - value: inside
    - update_minion: True

formula-archive:
  archive.extracted:
    - name: /opt/formula
    - source: salt://formula/files/default/tools.tar
    - enforce_toplevel: False

formula-git:
  git.config_set:
    - name: user.name
    - value: formula
    - global: True
    - user: root
