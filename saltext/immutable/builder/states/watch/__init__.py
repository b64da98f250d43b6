"""Wrappers of Salt's own classes that record in a `trace` what states, files and templates take from outside.

`traced_salt_call` puts them in place, in the machine that bakes; they never import what decides on the master.
"""
