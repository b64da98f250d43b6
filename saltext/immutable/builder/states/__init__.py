"""On the builder, as root: apply a recipe's states in a machine, and watch what they take from outside.

`run` is called by `builder.commands`; `tracing` runs inside the machine, by the image's own Python.
"""
