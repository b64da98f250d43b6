"""Machines with a kernel of their own, in which a builder applies states (``bake_in: vm``) or tests an image.

Called by the builder's commands; runs on the builder as root. Never imports the fleets or the store.
"""
