"""The lower layers of an image: a root (Debian, Ubuntu, a tar archive or a directory), then Salt with this pack.

Called by `builder.commands` as root on the builder. Each source has a module of its own.
"""
