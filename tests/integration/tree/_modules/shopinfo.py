"""What the shop's states ask for."""


def motto():
    """Return the motto of the shop."""
    return "open at " + __grains__["shop_tier"]


def greeting(words):
    """Return a line with the words of a greeting."""
    return f"{words}\n"
