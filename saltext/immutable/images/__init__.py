"""What an image is: layers, their manifests and digests, signatures, proof, provenance, bill of materials.

Read by the master, the builder, the host and the sealed machine itself. Nothing here bakes, launches or decides about
fleets, and nothing imports ``store``.
"""
