"""On the master: may a layer be used again, and if not, why.

Called by the steps of a bake and by ``image.why``. It reads the store and what the master serves, and builds nothing.
It must never import the steps, nor anything else of ``bake``.
"""
