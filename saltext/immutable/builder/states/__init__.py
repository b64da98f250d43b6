"""Apply a recipe's states in a machine, and record what they take from outside.

`state_run` is called by `builder.commands` as root on the builder. `traced_salt_call` and what it imports run inside
the machine, with the image's own Python.
"""
