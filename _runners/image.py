"""
Images: baked from recipes of the pillar, listed, shown, deleted.

.. code-block:: bash

    salt-run image.bake web
    salt-run image.list
    salt-run image.show web:stable
    salt-run image.delete web@3f2a9c1d04be test=True
"""

import time

try:
    from saltext.immutable import spec
    from saltext.immutable.bake import bake as baking
    from saltext.immutable.bake import catalog
    from saltext.immutable.runner import plainly, shown, telling

    MISSING = None
except ImportError as err:
    MISSING = f"the master needs: pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "image"
__func_alias__ = {"list_": "list"}


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def bake(name, channel="stable", refresh=False, test=False):
    """
    Bake a recipe: each layer that is not there yet is built; then the channel names the new image.

    name
        The recipe, as the pillar has it under ``immutable:recipes``.

    channel
        The name that shall point to the image; fleets follow ``stable`` unless they say otherwise.

    refresh
        Also build anew each layer whose packages have updates at the mirrors.

    test
        Only tell which layers would be built.

    Returns image, digest, changed, cached, channel, seconds, packages, each layer with what it took, and warnings: each
    file that holds a value of the pillar which the recipe marks as secret.

    CLI Example:

    .. code-block:: bash

        salt-run image.bake web
        salt-run image.bake web test=True
    """
    with telling(__opts__) as say:
        return shown(__opts__, baking.bake(name, __opts__, refresh=refresh, channel=channel, test=test, say=say))


def list_(recipe=None):
    """
    List the images, the newest first: recipe, digest, age, size, channels.

    CLI Example:

    .. code-block:: bash

        salt-run image.list
        salt-run image.list web --out=json
    """
    with plainly():
        return shown(__opts__, catalog.table(spec.settings(__opts__), recipe, time.time()))


def show(image):
    """
    Show one image: its layers, how long each took, versions, channels, and the policy of its machines.

    ``policy`` holds what the recipe and its parents fixed: ``guard`` (allow, deny, dry_runs), ``at_launch``,
    ``writable``, ``mutable``, ``states``. ``dangerous`` in it names the allowed functions that run any command, write
    any file or call any function.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.show web:stable
    """
    with plainly():
        return shown(__opts__, catalog.show(spec.settings(__opts__), image))


def delete(image, with_channels=False, test=False):
    """
    Delete an image and those of its layers that nothing else needs.

    It is refused while a channel, a generation of a fleet or a machine needs the image.

    with_channels
        Also take away the channels that name it.

    test
        Only tell whether it could be deleted.

    CLI Example:

    .. code-block:: bash

        salt-run image.delete web@3f2a9c1d04be test=True
    """
    with plainly():
        return shown(__opts__, catalog.delete(__opts__, image, with_channels=with_channels, test=test))
