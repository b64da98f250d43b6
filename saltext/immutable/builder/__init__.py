"""On the builder, as root: what the master orders of it, in plain data.

`commands` is the list of orders; `local` offers them to a master that is this host, ``_modules/image.py`` as Salt jobs.
Nothing here imports ``bake``, ``fleet`` or ``store``: a builder decides nothing.
"""
