"""On the master: what the store remembers of fleets. Generations, rollouts, the journal, machines, plans, taints.

Called by `fleet.drive` and by the commands of `fleet`. Nothing here asks a provider or Salt.
"""
