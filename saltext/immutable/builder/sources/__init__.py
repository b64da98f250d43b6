"""On the builder, as root: the roots that layers of states stand on. Debian, archives, directories, Salt.

Called by `builder.commands`. One file a source.
"""
