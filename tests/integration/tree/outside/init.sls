# What comes from elsewhere than the tree: an encrypted pillar, stores of secrets, the mine and other minions.
/etc/outside.token:
  file.managed:
    - mode: '0600'
    - contents_pillar: token

/etc/outside.stored:
  file.managed:
    - contents_pillar: stored

/etc/outside.configured:
  file.managed:
    - contents: "{{ salt['config.get']('later') }}"

/etc/outside.asked:
  file.managed:
    - contents: "{{ salt['sdb.get']('sdb://shelf/now') }}"

/etc/outside.mine:
  file.managed:
    - contents: "{{ salt['mine.get']('db.*', 'motto') | dictsort }}"

/etc/outside.nobody:
  file.managed:
    - contents: "{{ salt['mine.get']('nobody', 'motto') | dictsort }}"

/etc/outside.peer:
  file.managed:
    - contents: "{{ salt['publish.publish']('db.*', 'test.ping') | dictsort }}"
