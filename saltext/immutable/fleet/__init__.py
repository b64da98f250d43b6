"""Fleets: the commands of operators, and ``fleet.reconcile``, which keeps fleets as the pillar defines them.

The runner ``fleet.*`` and the master's schedule call it, on the master. `decide` is pure, `books` reads and writes the
store, `drive` runs rollouts, `show` makes the results. It must never import ``builder`` or ``machines``: machines are
reached through ``providers`` and ``traffic``.
"""
