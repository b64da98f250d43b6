"""What an image is: layers, their manifests and digests, seal, signature, provenance, bill of materials.

Read on the master, on the builder, on hosts and on sealed machines. Nothing here bakes, launches or decides about
fleets, and nothing imports ``store``.
"""
