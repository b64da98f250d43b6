"""
Run machines on this host: systemd-nspawn containers on the layers of an image.

The ``nspawn`` provider calls these functions, as root on the host that the master config names as
``immutable:builder``.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

try:
    from saltext.immutable import arguments, spec
    from saltext.immutable.command_line import Count, MinionId
    from saltext.immutable.host import Host
    from saltext.immutable.images import start_machines, verify
    from saltext.immutable.machines import commands

    MISSING = None
except ImportError as err:
    MISSING = f"the library is not installed on this host: pip install saltext-immutable ({err})"

__virtualname__ = "machine"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def _host():
    return Host(spec.settings(__opts__).root)


def launch(order: dict):
    """
    Start a machine from an image of this host and return its data. A running machine of the same id is left alone.

    order
        A mapping with minion_id, image (full digest), minion (its config), bridge, subnet; optional fleet,
        generation, installation, memory (bytes), cpus, ports (of this host, besides the two of the master), between
        (whether it may reach other machines), capabilities (besides the usual ones), trusted (public keys that may
        have signed its image), and before (epoch seconds after which it must not start).

    CLI Example:

    .. code-block:: bash

        salt builder machine.launch '{minion_id: web-1, image: 3f2a..., minion: {master: 10.117.0.1}, ...}'
    """
    return commands.launch(_host(), order)


def list_machines():
    """
    Return the machines that fleets launched on this host, running or not. Of each, ``ids`` is the user of this host
    that its root is; where that is 0, ``shares_ids`` says why it has no user namespace.

    CLI Example:

    .. code-block:: bash

        salt-call machine.list_machines
    """
    return commands.list_machines(_host())


def unmet(image: str, capabilities: list | None = None):
    """
    Return a sentence for each thing that an image wants of the kernel of this host, and that is not so.

    Machines share the kernel of their host, so they cannot set ``vm.*`` or load modules, and they leave out services
    that ask for a capability which they do not have (``ConditionCapability``). ``fleet.plan`` warns of both.

    image
        Its digest, in full.

    capabilities
        What the machines have besides their own, as the fleet's provider names it.

    CLI Example:

    .. code-block:: bash

        salt-call machine.unmet 3f2a9c1d04be...
    """
    return commands.unmet(_host(), image, capabilities or ())


def start_all():
    """
    Start the machines of fleets on this host that have stopped: after the host has booted, or by hand.

    They keep id, key, address and /var. Each image is verified first. Returns ``started`` and ``running`` (minion ids)
    and ``failed`` (minion id to reason). Where systemd is pid 1, the unit immutable-machines-*.service, which the first
    launch or list of machines enables, does the same at each boot.

    CLI Example:

    .. code-block:: bash

        salt-call machine.start_all
    """
    found = start_machines.start_all(_host())
    if found["failed"]:
        __context__["retcode"] = 1
    return found


def destroy(minion_id: MinionId):
    """
    Kill a machine and remove all of it but its console log. Return False if there was none.

    CLI Example:

    .. code-block:: bash

        salt-call machine.destroy web-6b1f0c9a2d47.example.com
    """
    return commands.destroy(_host(), minion_id)


def console(minion_id: MinionId, lines: Count = 60):
    """
    Return the last lines of a machine's console, also after its end.

    lines
        How many lines.

    CLI Example:

    .. code-block:: bash

        salt-call machine.console web-6b1f0c9a2d47.example.com --out=newline_values_only
    """
    return commands.console(_host(), minion_id, lines)


def require(digest: str, trusted: list):
    """
    Return the digest of an image; fail unless it is on this host as it was signed.

    trusted
        The public keys (base64) whose signatures count.

    CLI Example:

    .. code-block:: bash

        salt-call machine.require 3f2a9c1d04be... '[11qYAYKxCrfV...=]'
    """
    return verify.require(_host(), digest, trusted)


if MISSING is None:
    arguments.check_all(globals(), CommandExecutionError)
