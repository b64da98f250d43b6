"""``salt-call`` that writes down what it takes from outside; `trace` says what it writes.

Runs in the machine that bakes, by the image's own Python:
``python -m saltext.immutable.builder.states.tracing FILE MASTER salt-call ...``. It watches and changes nothing;
states that run in processes of their own (``parallel``) are seen as well.
"""

from __future__ import annotations

import glob
import os
import sys

from saltext.immutable.builder.states import custom_code, minion_events
from saltext.immutable.builder.states.trace import Trace
from saltext.immutable.builder.states.watch_files import watch_lists, watch_requests
from saltext.immutable.builder.states.watch_states import watch_states
from saltext.immutable.builder.states.watch_templates import watch_templates

HASH_KEY = "IMMUTABLE_TRACE_KEY"
"""Variable with the key of the hashes of states, as states hold secrets."""
_ALWAYS_USED = "/var/cache/salt/minion/extmods/{}/*.py"


def watch(trace: Trace) -> None:
    """Watch Salt's own classes."""
    watch_requests(trace)
    watch_lists(trace)
    watch_states(trace)
    watch_templates(trace)
    sys.addaudithook(trace.audited)
    for kind in ("grains", "renderers"):
        for file in sorted(glob.glob(_ALWAYS_USED.format(kind))):
            custom_code.file(trace, file)


def main() -> None:
    """Do what ``salt-call`` does, and watch it. Where that cannot be, do nothing and leave no file of a trace."""
    import salt.scripts
    import salt.utils.event

    file, master, *words = sys.argv[1:]
    trace = Trace(file, master, os.environ.pop(HASH_KEY, "").encode())
    try:
        watch(trace)
    except BaseException:
        os.unlink(file)
        raise
    minion_events.wait_for_no_minion(salt.utils.event.SaltEvent)
    sys.argv = words
    salt.scripts.salt_call()


if __name__ == "__main__":
    main()
