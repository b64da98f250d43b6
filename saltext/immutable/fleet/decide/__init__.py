"""On the master: every decision about fleets, as a function of data that returns data and a reason.

Called by `fleet.drive` and by the commands of `fleet`. Pure: no clock, no random, no I/O, no Salt; imports ``spec``,
``guard.policy`` and ``text`` only.
"""
