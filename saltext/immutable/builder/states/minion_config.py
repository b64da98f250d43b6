"""Minion config of sealed machines: what a state tree must not set, and what the pillar may set for a fleet."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

from saltext.immutable.text import quoted

_REFUSED = {
    "autoload_dynamic_modules": "a highstate, also with test=True, would sync executors that take the guard's place",
    "master_alive_interval": "it is a scheduled job, and a sealed machine runs none; a minion reconnects without it",
    "executor_dirs": "executors from there would take the guard's place",
    "module_dirs": "executors from there would take the guard's place",
    "module_executors": "the guard is in direct_call, splay and sudo, which Salt uses without this setting",
}

_SETTABLE = """
    acceptance_wait_time acceptance_wait_time_max auth_safemode auth_timeout auth_tries enable_fqdns_grains
    enable_gpu_grains enable_zfs_grains fips_mode grains grains_deep_merge grains_refresh_every ipv6 log_datefmt
    log_datefmt_console log_datefmt_logfile log_fmt_console log_fmt_jid log_fmt_logfile log_granular_levels log_level
    log_level_logfile loop_interval master_tries max_event_size mine_functions minion_jid_queue_hwm ping_interval
    process_count_max random_reauth_delay random_startup_delay recon_default recon_max recon_randomize
    rejected_retry retry_dns retry_dns_count return_retry_timer return_retry_timer_max return_retry_tries
    source_address source_interface_name state_output state_output_pct state_tabular state_verbose tcp_keepalive
    tcp_keepalive_cnt tcp_keepalive_idle tcp_keepalive_intvl tcp_reconnect_backoff timezone zmq_backlog zmq_filtering
"""
SETTABLE = frozenset(_SETTABLE.split())
"""Settings of a minion that a fleet may have of its own: none loads code, names the master or schedules calls."""


def not_settable(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each setting that a fleet may not have of its own."""
    for name in sorted(set(config) - SETTABLE, key=str):
        near = difflib.get_close_matches(str(name), SETTABLE, n=1)
        mend = f"did you mean {near[0]!r}?" if near else "let the states of the recipe write it into the image"
        yield f"{quoted(name)} is not a setting that a fleet may have of its own; {mend}"


def refuse(tree: Path) -> None:
    """Raise CommandExecutionError where the minion config in a layer's tree has a setting that `violations` names."""
    found = [f"/{file.relative_to(tree)} sets {each}" for file in _files(tree) for each in violations(_read(file))]
    if found:
        raise CommandExecutionError(
            f"no image may set this of its minion: {'; '.join(found)}; take it out of the states of this recipe"
        )


def _files(tree: Path) -> Iterator[Path]:
    folder = tree / "etc/salt"
    yield from (file for file in [folder / "minion", *sorted(folder.glob("minion.d/*.conf"))] if file.is_file())


def _read(file: Path) -> Mapping[str, Any]:
    """Return the config in a file, {} where it is no YAML mapping: Salt cannot read it either."""
    try:
        found = salt.utils.yaml.safe_load(file.read_text(errors="replace"))
    except salt.utils.yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}


def violations(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting that a sealed machine must not have, with the reason."""
    for name, reason in _REFUSED.items():
        if config.get(name):
            yield f"{name}: {reason}"
    schedule = config.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("enabled"):
        yield "schedule:enabled: the guard does not see scheduled jobs"
