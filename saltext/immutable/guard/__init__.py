"""On a sealed machine: what may be called, what is refused, and how the glass is broken.

Called by ``executors`` before each call, by ``_modules/immutable.py`` and by the launch unit. The way before a call
(`gate`, `policy`, `functions`, `seal`) imports the standard library only; nothing here imports ``fleet`` or ``store``.
"""
