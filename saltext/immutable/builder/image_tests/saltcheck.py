"""Run the tests of an image inside a machine of it, with the assertions of Salt's saltcheck.

Each process loads Salt once, not once a test. Tests that only read run in parallel, one a CPU. A test that may change
something waits for all tests before it, and all tests after it wait for it, so results do not depend on timing.
Standard input has the order as JSON, the last line of standard output the results.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from typing import Any

from saltext.immutable.builder import pins
from saltext.immutable.guard.policy import classify

SKIPPED = "skipped"
"""The message of a test that saltcheck skipped."""
_CONFIG = "/etc/salt/minion"
_salt: Any = None
"""The `salt.client.Caller` of this process, after `start_salt`."""
_outdated = False
"""Whether that has lost its pillar and must be replaced before the next test."""

Run = Callable[[Callable[..., Any], Sequence[Any]], list[Any]]
"""Like ``map``: calls a function with each item, perhaps in parallel, and returns the results in order."""


def results(order: Mapping[str, Any], run: Run) -> list[dict[str, Any]]:
    """Run the tests of ``order`` and return the name, passed, seconds and message of each.

    ``order``: tests, states (``highstate`` or a list), saltenv, pillarenv.
    """
    found: list[dict[str, Any]] = []
    single: list[Mapping[str, Any]] = []
    for test in order["tests"]:
        tests, errors = ([test], []) if test["sls"] is None else _suites(order, test, run)
        for each in tests:
            single += [] if _is_duplicate(each, single) else [each]  # two SLS may include a third one
        found += [_result(test["name"], False, 0.0, error) for error in errors]
    return found + [result for group in _groups(single) for result in run(_run_test, group)]


def _suites(
    order: Mapping[str, Any], test: Mapping[str, Any], run: Run
) -> tuple[list[Mapping[str, Any]], Sequence[str]]:
    """Return the tests in saltcheck's files for ``test['sls']`` ('' for all applied SLS), and errors."""
    applied = [(order["saltenv"], test["sls"])] if test["sls"] else run(_applied, [order])[0]
    suites = run(_suite, applied)
    tests = [each for tests, _ in suites for each in tests]
    errors = [error for _, error in suites if error]
    if tests or errors:
        return tests, errors
    names = ", ".join(sls for _, sls in applied)
    return [], [f"there is no file of tests for {names}; put one where saltcheck looks: NAME/saltcheck-tests/init.tst"]


def _is_duplicate(test: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the same test is among others, perhaps under the name of another SLS."""
    return any(each["check"] == test["check"] and _own_name(each) == _own_name(test) for each in others)


def _own_name(test: Mapping[str, Any]) -> str:
    """Return the name of a test without that of its SLS."""
    return str(test["name"]).rpartition(": ")[2]


def _groups(tests: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield groups of tests that may run in parallel, in order."""
    for reads, found in groupby(tests, key=lambda test: only_reads(test["check"])):
        group = list(found)
        yield from [group] if reads else ([test] for test in group)


def only_reads(check: Mapping[str, Any]) -> bool:
    """Return whether a test changes nothing, by the guard's classification of its function."""
    fun, args, kwargs = check.get("module_and_function"), check.get("args") or (), check.get("kwargs") or {}
    return isinstance(fun, str) and classify(fun, args, kwargs) == "read"


def _result(name: str, passed: bool, seconds: float, message: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "seconds": round(seconds, 3), "message": message}


# In a process that has loaded Salt


def start_in_turn(config: Mapping[str, Any], turn: Any, loaded: Any) -> None:
    """Load Salt in a process of a pool: where nobody did before, one process alone, then the others.

    Salt makes its cache folders while it loads, and of two processes that make the same folder one fails. ``turn``: a
    lock; ``loaded``: an event, set where the folders are there; both of `multiprocessing`.
    """
    with turn:
        if not loaded.is_set():
            start_salt(config)
            loaded.set()
            return
    start_salt(config)


def start_salt(config: Mapping[str, Any]) -> None:
    """Load Salt as this minion, for all tests. saltcheck would load it for each, masterless and without a pillar."""
    global _salt
    import salt.client

    _salt = salt.client.Caller(mopts=dict(config))
    _salt.restart = lambda: start_salt(config)


def _saltcheck() -> Any:
    return sys.modules[_salt.sminion.functions["saltcheck.run_test"].__module__]


def _answer(check: Mapping[str, Any]) -> Any:
    """Call the function of a test and return its answer. Not from within saltcheck, where it would see no pillar."""
    fun, kwargs = str(check.get("module_and_function")), dict(check.get("kwargs") or {})
    if check.get("skip") or fun not in _salt.sminion.functions:
        return None  # saltcheck reports this itself
    if pillar := check.get("pillar_data", check.get("pillar-data")):
        kwargs["pillar"] = pillar
    return _call(fun, *(check.get("args") or ()), **kwargs)


def _call(fun: str, *args: Any, **kwargs: Any) -> Any:
    """Call a function. One that compiles states leaves Salt without its pillar, so the next test gets a new one."""
    global _outdated
    _outdated = _outdated or fun.startswith(("state.", "saltcheck.run_state_tests"))
    return _salt.cmd(fun, *args, **kwargs)


def _applied(order: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the environment and name of each SLS that the recipe applies."""
    if order["states"] != "highstate":
        return [(order["saltenv"], sls) for sls in order["states"]]
    top = _call("state.show_top")
    return [(env, sls) for env, found in top.items() for sls in found]


def _suite(of: tuple[str, str]) -> tuple[list[Mapping[str, Any]], str]:
    """Return the tests that saltcheck finds for an SLS and those that it includes, or an error."""
    env, sls = of
    kind = _saltcheck().SaltCheck
    run_test = kind.run_test
    # saltcheck finds the tests and runs them in one step. Replace the second by one that only returns the test.
    kind.run_test = lambda _, test: {"status": "Pass", "duration": 0.0, "test": test}
    try:
        answer = _call("saltcheck.run_state_tests", sls, saltenv=env)
    except (Exception, SystemExit) as err:
        return [], f"{sls}: {_describe(err)}"
    finally:
        kind.run_test = run_test
    tests = [(name, found["test"]) for each in answer for name, found in each.get(sls, {}).items()]
    return [{"name": f"{sls}: {name}", "check": test} for name, test in tests], ""


def _run_test(test: Mapping[str, Any]) -> dict[str, Any]:
    """Run one test; an exception is a failure."""
    global _outdated
    if _outdated:
        _salt.restart()
        _outdated = False
    began = time.monotonic()
    try:
        answer = _answer(test["check"])
        _saltcheck().SaltCheck._call_salt_command = lambda *_: answer
        verdict = _salt.cmd("saltcheck.run_test", test=dict(test["check"]))
        passed, message = evaluate(verdict, str(test["check"].get("module_and_function")))
    except (Exception, SystemExit) as err:
        passed, message = False, _describe(err)
    return _result(test["name"], passed, time.monotonic() - began, message)


def _describe(err: BaseException) -> str:
    return f"{type(err).__name__}: {err}"


def evaluate(verdict: Any, fun: str) -> tuple[bool, str]:
    """Return whether the answer of ``saltcheck.run_test`` is a pass, and the message otherwise."""
    if not isinstance(verdict, Mapping):
        return False, str(verdict)
    status = str(verdict.get("status"))
    if status == "Pass":
        return True, ""
    if status == "Skip":
        return True, SKIPPED
    if status == "Fail - invalid test":
        return (
            False,
            f"saltcheck calls the test invalid: check that the function {fun} exists, and the test's assertion",
        )
    parts = [part["status"] for part in verdict.values() if isinstance(part, Mapping) and part.get("status") != "Pass"]
    return False, "; ".join(map(str, parts or [status]))


# In the machine


def config(order: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the config of this minion, with the saltenv and pillarenv of ``order``. ``file``: the minion config."""
    import salt.client  # before the fork, so that each process has it already
    import salt.config

    found = dict(salt.config.minion_config(file)) | {"saltcheck_parallel": False}
    return found | {name: order[name] for name in ("saltenv", "pillarenv") if order.get(name)}


def _run_all(order: Mapping[str, Any], workers: int, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run the tests in ``workers`` processes."""
    context = get_context("fork")
    turn, loaded = context.Lock(), context.Event()
    if os.path.isdir(config["cachedir"]):
        loaded.set()
    with ProcessPoolExecutor(workers, context, initializer=start_in_turn, initargs=(config, turn, loaded)) as pool:
        return results(order, lambda function, items: list(pool.map(function, items)))


def _trace(file: str, master: str, key: str) -> None:
    """Record what the tests request from the master, in the trace of the states, if there is one."""
    if os.path.exists(file):
        from saltext.immutable.builder.states.trace import Trace
        from saltext.immutable.builder.states.traced_salt_call import watch

        watch(Trace(file, master, key.encode()))


def main(file: str = _CONFIG) -> int:
    """Run the tests that standard input orders, and print the results. ``file``: the minion config."""
    order = json.load(sys.stdin)
    pins.install()
    if order.get("trace"):
        _trace(*order["trace"])
    many = any(test["sls"] is not None for test in order["tests"])
    cores = len(os.sched_getaffinity(0))
    # Each process loads Salt after the fork, because a forked one would share its sockets.
    workers = cores if many else min(cores, len(order["tests"]))
    print(json.dumps(_run_all(order, workers, config(order, file))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
