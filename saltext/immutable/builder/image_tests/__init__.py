"""On the builder, as root: run the tests of an image in a machine of it.

`run` is called by `builder.commands`; `saltcheck` runs inside the machine, by the image's own Python.
"""
