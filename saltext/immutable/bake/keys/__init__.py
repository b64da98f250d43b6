"""On the master: may a layer be used again, and if not, why.

Called by the steps of a bake and by ``image.why``. Reads the store and what the master serves; nothing here builds.
"""
