{# Taint what `fleet.drift` found to have drifted: the next roll replaces it.

   The event is but a hint, since any minion can fire one with any data. So only the machine's id is taken from it,
   quoted, and `kind: drift` taints only a machine of which `fleet.drift` wrote drift down.

   In the master config:

       reactor:
         - 'immutable/drift/*':
           - /srv/reactor/drift.sls
#}
taint it:
  runner.fleet.taint:
    - args:
      - minion_id: {{ tag.split('/', 2)[2] | json }}
      - kind: drift
