"""On the master: what operators do with images besides baking them, a file a command.

Called by the runner ``image.*``; runs as the master's user, and asks the builder for what needs root. No step of a bake
imports it.
"""
