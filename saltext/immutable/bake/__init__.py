"""On the master: from a recipe to an image, and what becomes of images afterwards.

``bake.py`` reads as a sentence. Called by the runners ``image.*`` and ``fleet.rebuild``. Root's work is asked of a
builder through `saltext.immutable.worker`. Nothing here imports ``fleet``.
"""
