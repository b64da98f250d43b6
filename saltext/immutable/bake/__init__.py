"""On the master: from a recipe to an image. ``bake.py`` lists the steps; ``commands/`` is what operators do afterwards.

Called by the runners ``image.*`` and ``fleet.rebuild``. It runs as the master's user and asks a builder, through
`saltext.immutable.worker`, for what needs root. It must never import ``fleet``.
"""
