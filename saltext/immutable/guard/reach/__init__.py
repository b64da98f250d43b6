"""What a call would reach on this machine: units of systemd, processes, and files with secrets.

The policy asks what is pure here, the gate asks what looks at the machine. It runs before calls of some functions, and
imports the standard library only.
"""
