#!py


def run():
    """Return states, as a tree that outgrew Jinja does."""
    shards = {f"/etc/formula.shard{n}": {"file.managed": [{"contents": str(n)}, {"makedirs": True}]} for n in range(3)}
    return {**shards, "formula-python": {"file.managed": [{"name": "/etc/formula.py"}, {"contents": __grains__["os"]}]}}
