# A release, as Salt orchestration. In the master config: file_roots: {orch: [/srv/orch]}; then
#
#     salt-run state.orchestrate release saltenv=orch
#     salt-run state.orchestrate release saltenv=orch test=True
image of web:
  image.baked:
    - name: web

fleet of web:
  fleet.running:
    - name: web
    - require:
      - image: image of web
