formula-custom:
  greeting.written:
    - name: /etc/formula.greeting
    - words: {{ salt['pillar.get']('formula:greeting', 'hello') }}

formula-module:
  module.run:
    - test.echo:
      - text: hello

formula-library:
  pip.installed:
    - name: tabulate==0.9.0
    - reload_modules: True
