"""On the master: what the fleet's commands and questions say, as data and as tables for a terminal.

Called by the runner ``fleet.*``. Reads books and lists; changes nothing.
"""
