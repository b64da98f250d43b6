# States that need an answer which nobody gives.
/etc/wanting:
  file.managed:
    - contents: "{{ salt['mine.get']('nobody', 'motto')['nobody'] }}"
