"""
Seal minions from a state tree: from then on they refuse changes.

.. code-block:: yaml

    this host is finished:
      immutable.sealed:
        - mutable: [/srv/uploads]
        - order: last
"""

__virtualname__ = "immutable"


def __virtual__():
    if "immutable.seal" in __salt__:
        return __virtualname__
    return False, "pip install saltext-immutable where this minion runs"


def sealed(name, guard=None, mutable=None):
    """
    Ensure that this minion is sealed. Put this state last (``order: last``): no state after it can change anything.

    In a bake it does nothing: the bake itself seals the image.

    name
        A free description.

    guard
        As in a recipe: ``{allow: [...], deny: [...]}``.

    mutable
        Paths (globs) that change by design, so that their changes are not drift.

    .. code-block:: yaml

        this host is finished:
          immutable.sealed:
            - guard: {allow: [shop.reindex]}
            - order: last
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    if __opts__.get("immutable_bake"):
        return {**ret, "comment": "the bake seals this image"}
    now = __salt__["immutable.status"]()
    if now["sealed"]:
        return {**ret, "comment": f"this machine is sealed: {now.get('image', now['problems'])}"}
    stopped = __salt__["immutable.seal"](guard=guard, mutable=mutable, test=True)["stopped_jobs"]
    if __opts__["test"]:
        comment = f"this minion would be sealed; {len(stopped)} scheduled jobs would stop"
        return {**ret, "result": None, "changes": {"sealed": {"old": False, "new": True}}, "comment": comment}
    done = __salt__["immutable.seal"](guard=guard, mutable=mutable)
    changes = {"sealed": {"old": None, "new": done["image"]}, "stopped_jobs": sorted(stopped)}
    return {**ret, "changes": changes, "comment": f"sealed as {done['image']}"}
