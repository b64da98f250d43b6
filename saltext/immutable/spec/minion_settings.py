"""Read the minion config that a fleet may have of its own: ``provider: {minion: {log_level: info}}``."""

from __future__ import annotations

import difflib
import re
from typing import Any

from saltext.immutable.spec import reading
from saltext.immutable.spec.reading import Reader
from saltext.immutable.spec.section import Section
from saltext.immutable.text import quoted

_LEVELS = ("all", "critical", "debug", "error", "garbage", "info", "profile", "quiet", "trace", "warning")
_FUNCTION = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_DAY = 86400
_UNREADABLE = object()


def _level(value: object) -> str:
    found = reading.text(value)
    if found.lower() not in _LEVELS:
        raise ValueError(f"{quoted(found)} is not a level of Salt's log; {reading.nearest(found, _LEVELS)}")
    return found


def _levels(value: object) -> dict[str, str]:
    return {reading.text(name): _level(level) for name, level in reading.mapping(value).items()}


def _mine_functions(value: object) -> Any:
    found = reading.data(value)
    if not isinstance(found, list | dict):
        raise ValueError(f"must name functions, not {reading.described(value)}; write {{network.ip_addrs: []}}")
    for key in found:
        function = _called(reading.text(key), found[key] if isinstance(found, dict) else None)
        if not isinstance(function, str) or not _FUNCTION.fullmatch(function):
            raise ValueError(
                f"{quoted(key)} calls {quoted(function)}, which is no function; write {{network.ip_addrs: []}} or "
                "{web-ip: [{mine_function: network.ip_addrs}]}"
            )
    return found


def _called(key: str, given: object) -> object:
    """Return the function that an entry of the mine calls: the key, or what ``mine_function`` says for an alias."""
    parts = given if isinstance(given, list) else [given]
    named = [part["mine_function"] for part in parts if isinstance(part, dict) and "mine_function" in part]
    return named[-1] if named else key


def _or_null(reader: Reader[Any]) -> Reader[Any]:
    return lambda value: None if value is None else reader(value)


_KINDS: dict[Reader[Any], str] = {
    reading.flag: """
        auth_safemode enable_fqdns_grains enable_gpu_grains enable_zfs_grains fips_mode grains_deep_merge
        recon_randomize rejected_retry state_output_pct state_tabular state_verbose tcp_keepalive zmq_filtering
    """,
    _or_null(reading.flag): "ipv6",
    reading.number(0, _DAY): "acceptance_wait_time acceptance_wait_time_max retry_dns tcp_reconnect_backoff",
    reading.number(0.01, _DAY): "loop_interval",
    reading.number(0, 1000 * _DAY): "recon_default recon_max",
    reading.number(-1, _DAY): "tcp_keepalive_cnt tcp_keepalive_idle tcp_keepalive_intvl",
    reading.whole(0, _DAY): """
        grains_refresh_every ping_interval random_reauth_delay random_startup_delay return_retry_timer
        return_retry_timer_max
    """,
    reading.whole(1, _DAY): "auth_timeout auth_tries minion_jid_queue_hwm return_retry_tries zmq_backlog",
    reading.whole(-1, _DAY): "master_tries process_count_max",
    _or_null(reading.whole(0, _DAY)): "retry_dns_count",
    reading.whole(1 << 10, 1 << 30): "max_event_size",
    reading.text: """
        log_datefmt log_datefmt_console log_datefmt_logfile log_fmt_console log_fmt_logfile source_address
        source_interface_name state_output timezone
    """,
    _or_null(reading.text): "log_fmt_jid",
    _level: "log_level",
    _or_null(_level): "log_level_logfile",
    _levels: "log_granular_levels",
    reading.data_mapping: "grains",
    _mine_functions: "mine_functions",
}
SETTABLE = {name: reader for reader, names in _KINDS.items() for name in names.split()}
"""Settings of a minion that a fleet may have of its own: none loads code, names the master or schedules calls."""


def minion_settings(read: Section) -> dict[str, Any]:
    """Read minion config; the values that are wrong are left out."""
    for name in sorted(set(read.unread()) - set(SETTABLE)):
        near = difflib.get_close_matches(name[:100], SETTABLE, n=1)
        mend = f"did you mean {near[0]!r}?" if near else "let the states of the recipe write it into the image"
        read.problem("", f"{quoted(name)} is not a setting that a fleet may have of its own; {mend}")
    values = {name: read.take(name, SETTABLE[name], _UNREADABLE) for name in read.unread() if name in SETTABLE}
    return {name: value for name, value in values.items() if value is not _UNREADABLE}
