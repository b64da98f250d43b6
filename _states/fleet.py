"""
Fleets in orchestration: ``salt-run state.orchestrate`` brings them to the image of their channel.

.. code-block:: yaml

    web:
      fleet.running
"""

from __future__ import annotations

__virtualname__ = "fleet"


def __virtual__():
    if "saltutil.runner" in __salt__:
        return __virtualname__
    return (False, "fleet.running runs on the master, through state.orchestrate")


def running(name):
    """
    Ensure that every machine of fleet ``name`` runs the image that the fleet's channel names.

    An interrupted rollout is continued. With ``test=True`` the changes are what would be launched and destroyed.

    .. code-block:: yaml

        web:
          fleet.running
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    ok, step = _run("fleet.plan", name)
    if not ok:
        return {**ret, "result": False, "comment": step}
    if step["verdict"] == "done":
        return {**ret, "comment": f"fleet {name} runs {step['image']}: {step['reason']}"}
    if __opts__["test"]:
        return {**ret, "result": None, "changes": step["changes"], "comment": step["reason"]}
    ok, done = _run("fleet.roll", name)
    if not ok:
        return {**ret, "result": False, "comment": done}
    changes = {"image": done["image"], "generation": done["generation"], **step["changes"]}
    return {**ret, "changes": changes, "comment": f"fleet {name} runs {done['image']}: {done['reason']}"}


def _run(fun, name):
    """Run a runner function: return (True, its result) or (False, its error)."""
    out = __salt__["saltutil.runner"](fun, arg=[name], full_return=True)
    return out.get("success", False) and isinstance(out["return"], dict), out.get("return")
