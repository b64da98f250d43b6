"""On the master: the steps of a bake, a file each. Each is a function that takes a `Stack` and returns a new one.

``bake.py`` lists them in order and calls them. No step imports another one: what two of them need lies beside this
folder.
"""
