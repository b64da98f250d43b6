"""From an image to running machines of this host: systemd-nspawn containers on the layers of the image.

Runs as root on a host. Called by the ``nspawn`` provider through `commands` and by the builder through `machine`.
A machine carries the name of its fleet, but nothing here reads a fleet or decides about one.
"""
