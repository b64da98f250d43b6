"""What the store holds about fleets: generations, rollouts, the journal, machines, plans, taints, the audit log.

`fleet.drive` and the commands of `fleet` call it, on the master. It never calls a provider or Salt, and must never
import `fleet.drive` or the commands.
"""
