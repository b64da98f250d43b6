base:
  # The master's own minion id for its pillar: the runners read the definitions with it.
  '*_master':
    - immutable
  # The recipe's bake_id and the fleet's machines: the state tree sees the same pillar in both.
  'web-*':
    - web
