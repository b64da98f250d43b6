"""Executors that replace those of Salt's core with the same names and ask the guard before each call.

They run on every minion that has this pack: Salt calls them before each function. They are installed with the wheel and
never synced. On a host without a seal they import the standard library only.
"""
