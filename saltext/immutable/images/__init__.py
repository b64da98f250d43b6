"""What an image is: layers, their manifests and digests, seal, signature, provenance, bill of materials.

Read on the master, on the builder, on hosts and on sealed machines; `start_machines` is a program of hosts, which
starts machines again. Nothing here bakes or decides about fleets, and nothing imports ``store``.
"""
