"""On the master: drive one rollout to its end: observe, plan, commit, act.

Called by `fleet.operations`. `loop` reads as that sentence; calls of providers and Salt are made in threads.
"""
