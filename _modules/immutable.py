"""What is known on one machine about its image."""

from __future__ import annotations

try:
    from saltext.immutable import seal

    HAS_LIBRARY = True
except ImportError:
    HAS_LIBRARY = False

__virtualname__ = "immutable"


def __virtual__():
    if HAS_LIBRARY:
        return __virtualname__
    return (
        False,
        "the library saltext.immutable is missing; pip install saltext-immutable where this minion runs",
    )


def status():
    """Return what this machine says about its image, and what is wrong with that.

    Keys: ``sealed``, ``problems`` (sentences; empty when all is well) and, on a sealed machine whose seal
    can be read, ``image``, ``digest``, ``recipe``, ``read_only``, ``created`` (seconds since the epoch),
    ``salt``, ``pack``, ``fleet``, ``generation`` and ``installation``.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.status
    """
    try:
        found = seal.read(seal.SEAL_PATH)
        machine = seal.machine(seal.MACHINE_PATH)
    except seal.SealDamaged as err:
        return {"sealed": True, "problems": [str(err)]}
    if found is None:
        return {"sealed": False, "problems": []}
    return {
        "sealed": True,
        "problems": [],
        "image": found.name,
        "digest": found.image,
        "recipe": found.recipe,
        "read_only": found.read_only,
        "created": found.created,
        "salt": found.salt,
        "pack": found.pack,
        **{key: machine.get(key) for key in ("fleet", "generation", "installation")},
    }
