"""Export an image as one file: tar, squashfs, OCI archive, or a disk that boots. Each format has a module of its own.

``_modules/image.py`` and `bake.commands.export` call `write`, as root on the builder. Layers are only read; nothing is
mounted.
"""
