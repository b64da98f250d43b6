"""A state of the tree's own, which uses a module of the tree's own."""


def written(name, words):
    """Have a greeting in a file."""
    result = {"name": name, "result": True, "changes": {}, "comment": ""}
    wanted = __salt__["shopinfo.greeting"](words)
    if __salt__["file.file_exists"](name) and __salt__["file.read"](name) == wanted:
        return result
    if __opts__["test"]:
        return {**result, "result": None, "changes": {"greeting": wanted}}
    __salt__["file.write"](name, wanted.rstrip("\n"))
    return {**result, "changes": {"greeting": wanted}}
