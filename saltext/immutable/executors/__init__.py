"""The guard's hooks: executors that shadow those of Salt's core, so that each call is judged before it runs.

Salt's loader calls them in every process of a minion, before each function. They come with the installed wheel only,
and are never synced; without a seal they must import nothing but the standard library.
"""
