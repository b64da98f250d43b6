"""What is called in place of Salt's state functions that need more than a container has: one file for each kind.

`deferred` calls them, in the machine that bakes. They import nothing of the builder but the trace.
"""
