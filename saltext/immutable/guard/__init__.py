"""The guard of a sealed machine: which calls run, which are refused, and how break-glass opens it for a while.

It runs on the machine. ``executors`` call it before each function; ``_modules/immutable.py`` and the launch unit call
it too. What runs before each function (`gate`, `policy`, `functions`, `seal`, `reach`) imports the standard library
only; nothing here imports ``fleet`` or ``store``.
"""
