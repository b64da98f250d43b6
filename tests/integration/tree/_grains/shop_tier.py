"""The tier that a machine of the shop belongs to."""


def shop_tier():
    """Every machine of this tree is a front."""
    return {"shop_tier": "front"}
