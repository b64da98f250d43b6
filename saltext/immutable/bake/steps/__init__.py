"""On the master: the steps of a bake, a file each. Each is a function that takes a `Stack` and returns a new one.

``../step_order.py`` lists them, and ``../bake.py`` calls them. No step imports another one: what two of them need lies
beside this folder.
"""
