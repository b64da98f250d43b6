"""What happens to the tree of a layer before it is committed: slim, scrub, and search for secrets and identities.

Called by `builder.commands` as root on the builder. These modules know files only, neither machines nor fleets.
"""
