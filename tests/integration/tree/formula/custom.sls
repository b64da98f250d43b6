formula-custom:
  greeting.written:
    - name: /etc/formula.greeting
    - words: {{ salt['pillar.get']('formula:greeting', 'hello') }}

formula-module:
  module.run:
    - test.echo:
      - text: hello
