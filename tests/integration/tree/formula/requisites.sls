formula-first:
  file.managed:
    - name: /etc/formula.first
    - contents: first
    - prereq_in: []

formula-before:
  cmd.run:
    - name: echo before > /etc/formula.before
    - prereq:
      - file: formula-prepared

formula-prepared:
  file.managed:
    - name: /etc/formula.prepared
    - contents: prepared

formula-may-fail:
  test.nop: []

formula-on-failure:
  cmd.run:
    - name: echo failed > /etc/formula.failed
    - onfail:
      - test: formula-may-fail

formula-unless:
  cmd.run:
    - name: echo once > /etc/formula.once
    - unless:
      - test -f /etc/formula.once
      - fun: file.file_exists
        path: /etc/formula.once

formula-onlyif:
  cmd.run:
    - name: echo never > /etc/formula.never
    - onlyif:
      - fun: match.grain
        tgt: 'os:Windows'

formula-creates:
  cmd.run:
    - name: echo created > /etc/formula.created
    - creates: /etc/formula.created

formula-listens:
  cmd.wait:
    - name: echo heard >> /etc/formula.heard
    - listen:
      - file: formula-first

formula-retried:
  cmd.run:
    - name: test -f /run/second-try || { touch /run/second-try; exit 1; }
    - retry: {attempts: 3, interval: 1}
    - unless: test -f /etc/formula.retried
    - require_in:
      - file: formula-after-retry

formula-after-retry:
  file.managed:
    - name: /etc/formula.retried
    - contents: 'yes'

{% for number in (1, 2, 3) %}
formula-parallel-{{ number }}:
  cmd.run:
    - name: sleep 0.2; echo {{ number }} > /etc/formula.parallel.{{ number }}
    - creates: /etc/formula.parallel.{{ number }}
    - parallel: True
{% endfor %}

formula-after-parallel:
  file.exists:
    - name: /etc/formula.parallel.2
    - require:
      - cmd: formula-parallel-2

formula-stateful:
  cmd.run:
    - name: 'echo; echo "changed=no comment=''as it should be''"'
    - stateful: True

formula-any:
  file.managed:
    - name: /etc/formula.any
    - contents: any
    - require_any:
      - cmd: formula-creates
      - cmd: formula-unless

formula-use:
  file.managed:
    - name: /etc/formula.used
    - contents: used
    - use:
      - file: formula-moded

formula-moded:
  file.managed:
    - name: /etc/formula.moded
    - contents: moded
    - mode: '0600'
