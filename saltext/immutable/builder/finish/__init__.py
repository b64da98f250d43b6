"""On the builder, as root: what is taken out of a finished layer, and what may not be in it.

Called by `builder.commands` before a layer is committed. Knows files only, no machines of fleets.
"""
