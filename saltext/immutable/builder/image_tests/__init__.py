"""Run the tests of an image in a machine of it.

`run` is called by `builder.commands` as root on the builder. `saltcheck` runs inside the machine, with the image's own
Python.
"""
