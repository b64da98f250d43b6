"""On a host, as root: from an image to running machines, with systemd-nspawn on the layers themselves.

Called by the ``nspawn`` provider and by the builder, through `commands` and `machine`. Nothing here knows of fleets.
"""
