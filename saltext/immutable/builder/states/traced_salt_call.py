"""``salt-call`` that records in a file what it takes from outside; the module `trace` describes the file.

Runs in the machine that bakes, with the image's own Python: ``python -m
saltext.immutable.builder.states.traced_salt_call FILE MASTER salt-call ...``. It changes nothing but the states that
`deferred` names, what errors of rendering say, and whose certificates Salt trusts. States that run in processes of
their own (``parallel``) are recorded as well.
"""

from __future__ import annotations

import functools
import glob
import os
import sys
from collections.abc import Callable
from typing import Any

from saltext.immutable import systemd
from saltext.immutable.builder import pins
from saltext.immutable.builder.states import custom_code, deferred, minion_events
from saltext.immutable.builder.states.trace import Trace, wrap_method
from saltext.immutable.builder.states.watch.files import watch_lists, watch_requests
from saltext.immutable.builder.states.watch.states import watch_states
from saltext.immutable.builder.states.watch.templates import explain_errors, watch_stores, watch_templates

HASH_KEY = "IMMUTABLE_TRACE_KEY"
"""Environment variable with the key of the hashes of states; plain hashes could reveal the secrets in them."""
AT_BOOT = "IMMUTABLE_AT_BOOT"
"""Environment variable with the units that are not started, separated by spaces."""
OWN_KERNEL = "IMMUTABLE_OWN_KERNEL"
"""Environment variable that is set where the machine that bakes has a kernel of its own."""
_OF_BUILDER = "SSL_CERT_FILE"
"""Environment variable with the builder's bundle of authorities, which Salt does not read."""
_AUTHORITIES = "/run/immutable-authorities.crt"
"""Both bundles in one: the image's, to which states may add, and the builder's."""
_ALWAYS_USED = "/var/cache/salt/minion/extmods/{}/*.py"


def watch(trace: Trace) -> None:
    """Wrap Salt's own classes so that they record in ``trace``."""
    watch_requests(trace)
    watch_lists(trace)
    watch_states(trace)
    watch_templates(trace)
    watch_stores(trace)
    sys.addaudithook(trace.audit_hook)
    for kind in ("grains", "renderers"):
        for file in sorted(glob.glob(_ALWAYS_USED.format(kind))):
            custom_code.check_module(trace, file)


def trust_builder(http: Any, target: str = _AUTHORITIES) -> None:
    """Have ``http`` (the module ``salt.utils.http``) trust the builder's authorities too, as all programs in a bake do.

    ``target``: the file with both bundles, written at each use.
    """

    def bundle(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def get_ca_bundle(opts: Any = None) -> Any:
            own, more = original(opts), os.environ.get(_OF_BUILDER, "")
            if not os.path.isfile(more) or (opts or {}).get("ca_bundle"):
                return own
            with open(f"{target}.{os.getpid()}", "wb") as file:
                for path in filter(os.path.isfile, filter(None, (own, more))):
                    with open(path, "rb") as part:
                        file.write(part.read() + b"\n")
            os.replace(file.name, target)
            return target

        return get_ca_bundle

    wrap_method(http, "get_ca_bundle", bundle)


def main() -> None:
    """Run ``salt-call`` and record. Where Salt's classes cannot be wrapped, delete the file and raise."""
    import salt.loader.lazy
    import salt.scripts
    import salt.utils.event
    import salt.utils.http

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
    trust_builder(salt.utils.http)
    minion_events.skip_absent_minion(salt.utils.event.SaltEvent)
    sys.argv = words
    salt.scripts.salt_call()


if __name__ == "__main__":
    main()
