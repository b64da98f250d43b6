"""``salt-call`` that records in a file what it takes from outside; the module `trace` describes the file.

Runs in the machine that bakes, with the image's own Python: ``python -m
saltext.immutable.builder.states.traced_salt_call FILE MASTER salt-call ...``. It changes nothing but the states that
`deferred` names, and what errors of rendering say. States that run in processes of their own (``parallel``) are
recorded as well.
"""

from __future__ import annotations

import glob
import os
import sys

from saltext.immutable import systemd
from saltext.immutable.builder import pins
from saltext.immutable.builder.states import custom_code, deferred, minion_events
from saltext.immutable.builder.states.trace import Trace
from saltext.immutable.builder.states.watch.files import watch_lists, watch_requests
from saltext.immutable.builder.states.watch.states import watch_states
from saltext.immutable.builder.states.watch.templates import explain_errors, watch_templates

HASH_KEY = "IMMUTABLE_TRACE_KEY"
"""Environment variable with the key of the hashes of states; plain hashes could reveal the secrets in them."""
AT_BOOT = "IMMUTABLE_AT_BOOT"
"""Environment variable with the units that are not started, separated by spaces."""
OWN_KERNEL = "IMMUTABLE_OWN_KERNEL"
"""Environment variable that is set where the machine that bakes has a kernel of its own."""
_ALWAYS_USED = "/var/cache/salt/minion/extmods/{}/*.py"


def watch(trace: Trace) -> None:
    """Wrap Salt's own classes so that they record in ``trace``."""
    watch_requests(trace)
    watch_lists(trace)
    watch_states(trace)
    watch_templates(trace)
    sys.addaudithook(trace.audit_hook)
    for kind in ("grains", "renderers"):
        for file in sorted(glob.glob(_ALWAYS_USED.format(kind))):
            custom_code.check_module(trace, file)


def main() -> None:
    """Run ``salt-call`` and record. Where Salt's classes cannot be wrapped, delete the file and raise."""
    import salt.loader.lazy
    import salt.scripts
    import salt.utils.event

    file, master, *words = sys.argv[1:]
    trace = Trace(file, master, os.environ.pop(HASH_KEY, "").encode())
    try:
        pins.install()  # first, so that the trace has the names of environments as states know them
        watch(trace)
    except BaseException:
        os.unlink(file)
        raise
    at_boot = [systemd.full_name(unit) for unit in os.environ.pop(AT_BOOT, "").split()]
    own_kernel = bool(os.environ.pop(OWN_KERNEL, ""))
    deferred.Deferral(trace, at_boot, own_kernel).watch(salt.loader.lazy.LazyLoader)
    explain_errors()
    minion_events.skip_absent_minion(salt.utils.event.SaltEvent)
    sys.argv = words
    salt.scripts.salt_call()


if __name__ == "__main__":
    main()
