"""On the master: what operators ask of fleets, and what keeps fleets as they should be.

Called by the runner ``fleet.*`` and by the master's schedule. `decide` is pure, `books` remembers, `drive` acts,
`show` tells. Machines are reached through ``providers`` and ``traffic``, never directly.
"""
