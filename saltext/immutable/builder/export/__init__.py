"""On the builder, as root: an image as one file for the rest of the world. One file a format.

`write` is called by ``_modules/image.py`` and by `bake.commands.export`. Layers are read, nothing is mounted.
"""
