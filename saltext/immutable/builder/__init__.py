"""What a builder does for the master, as root on the builder: make layers and images from plain data.

The master calls `commands` through the table in `local` if it is this host, otherwise as Salt jobs through
``_modules/image.py``. Nothing here imports ``bake``, ``fleet`` or ``store``: a builder decides nothing.
"""
