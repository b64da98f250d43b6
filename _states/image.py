"""
Images in orchestration: ``salt-run state.orchestrate`` keeps them baked from what the pillar and the tree say.

.. code-block:: yaml

    web:
      image.baked
"""

from __future__ import annotations

__virtualname__ = "image"


def __virtual__():
    if "saltutil.runner" in __salt__:
        return __virtualname__
    return (False, "image.baked runs on the master, through state.orchestrate")


def baked(name, channel="stable", refresh=False):
    """
    Ensure that ``channel`` names an image of recipe ``name`` as pillar, states and top file are now.

    Layers that are there already are not built again. With ``test=True`` those that would be built are named.

    channel
        The name that shall point to the image.

    refresh
        ``updates`` (or True): also build again the layers whose packages have updates at the mirrors. ``always``: build
        every layer again.

    .. code-block:: yaml

        web:
          image.baked:
            - channel: candidate
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    ok, baked_ = _bake(name, channel=channel, refresh=refresh, test=__opts__["test"])
    if not ok:
        return {**ret, "result": False, "comment": str(baked_)}
    if not baked_["changed"]:
        return {**ret, "comment": f"{name}:{channel} is up to date"}
    built = [layer["what"] for layer in baked_["layers"] if not layer["cached"]]
    if __opts__["test"]:
        return {**ret, "result": None, "changes": {"layers": built}, "comment": f"would build: {', '.join(built)}"}
    changes = {"image": baked_["image"], "layers": built}
    return {**ret, "changes": changes, "comment": f"{name}:{channel} is {baked_['image']}"}


def _bake(name, **kwargs):
    """Bake by the runner: (True, what it returned) or (False, what it said)."""
    out = __salt__["saltutil.runner"]("image.bake", arg=[name], kwarg=kwargs, full_return=True)
    return out.get("success", False) and isinstance(out["return"], dict), out.get("return")
