"""The tests of an image, run in a machine of it by saltcheck's own assertions: one Salt a core, not one a test.

Tests that only read run at the same time; one that may change something waits for those before it, and those after it
wait for it: so they mean what their order says. Standard input has the order, the last line of output the results.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from multiprocessing import get_context
from typing import Any

from saltext.immutable.guard.policy import classify

SKIPPED = "skipped"
"""What a result says that nothing was looked at."""
_CONFIG = "/etc/salt/minion"
_salt: Any = None
"""The Salt of this process, once `begin` ran in it."""
_spent = False
"""Whether that one should call no more."""

Run = Callable[[Callable[..., Any], Sequence[Any]], list[Any]]
"""Calls a function with each of these, several at a time or not, and returns what came of it, in their order."""


def results(order: Mapping[str, Any], run: Run) -> list[dict[str, Any]]:
    """Run the tests of ``order`` (tests, states, saltenv) and return for each: name, passed, seconds, message."""
    found: list[dict[str, Any]] = []
    single: list[Mapping[str, Any]] = []
    for test in order["tests"]:
        tests, wrong = ([test], []) if test["sls"] is None else _suites(order, test, run)
        for each in tests:
            single += [] if _there(each, single) else [each]  # two SLS may include a third one
        found += [_result(test["name"], False, 0.0, why) for why in wrong]
    return found + [result for group in _groups(single) for result in run(_one, group)]


def _suites(
    order: Mapping[str, Any], test: Mapping[str, Any], run: Run
) -> tuple[list[Mapping[str, Any]], Sequence[str]]:
    """Return the tests in saltcheck's files, and why some cannot be told."""
    applied = [(order["saltenv"], test["sls"])] if test["sls"] else run(_applied, [order])[0]
    there = run(_suite, applied)
    tests = [each for tests, _ in there for each in tests]
    wrong = [why for _, why in there if why]
    if tests or wrong:
        return tests, wrong
    named = ", ".join(sls for _, sls in applied)
    return [], [f"there is no file of tests for {named}; saltcheck looks for NAME/saltcheck-tests/init.tst"]


def _there(test: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a test is among others, under the name of another SLS perhaps."""
    return any(each["check"] == test["check"] and _own(each) == _own(test) for each in others)


def _own(test: Mapping[str, Any]) -> str:
    return str(test["name"]).rpartition(": ")[2]


def _groups(tests: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the tests that may run at the same time, in order."""
    for reads, found in groupby(tests, key=lambda test: only_reads(test["check"])):
        group = list(found)
        yield from [group] if reads else ([test] for test in group)


def only_reads(check: Mapping[str, Any]) -> bool:
    """Tell whether a test leaves the machine as it is."""
    fun, args, kwargs = check.get("module_and_function"), check.get("args") or (), check.get("kwargs") or {}
    return isinstance(fun, str) and classify(fun, args, kwargs) == "read"


def _result(name: str, passed: bool, seconds: float, message: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "seconds": round(seconds, 3), "message": message}


# In a process that has a Salt


def begin(config: Mapping[str, Any]) -> None:
    """Get a Salt of this minion, for all tests: saltcheck would make a masterless one, without a pillar, for each."""
    global _salt
    import salt.client

    _salt = salt.client.Caller(mopts=dict(config))
    _salt.renewed = lambda: begin(config)


def _saltcheck() -> Any:
    return sys.modules[_salt.sminion.functions["saltcheck.run_test"].__module__]


def _asked(check: Mapping[str, Any]) -> Any:
    """Return what the function of a test says. It is not called from within saltcheck: no pillar is seen there."""
    fun, kwargs = str(check.get("module_and_function")), dict(check.get("kwargs") or {})
    if check.get("skip") or fun not in _salt.sminion.functions:
        return None  # saltcheck says so
    if pillar := check.get("pillar_data", check.get("pillar-data")):
        kwargs["pillar"] = pillar
    return _call(fun, *(check.get("args") or ()), **kwargs)


def _call(fun: str, *args: Any, **kwargs: Any) -> Any:
    """Call a function; what compiles states leaves a Salt without its pillar, and the next test gets a new one."""
    global _spent
    _spent = _spent or fun.startswith(("state.", "saltcheck.run_state_tests"))
    return _salt.cmd(fun, *args, **kwargs)


def _applied(order: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the recipe applies, by environment."""
    if order["states"] != "highstate":
        return [(order["saltenv"], sls) for sls in order["states"]]
    top = _call("state.show_top")
    return [(env, sls) for env, found in top.items() for sls in found]


def _suite(of: tuple[str, str]) -> tuple[list[Mapping[str, Any]], str]:
    """Return the tests that saltcheck finds for an SLS and those that it includes, or why it cannot."""
    env, sls = of
    kind = _saltcheck().SaltCheck
    run_test = kind.run_test
    # What finds the files also runs them: it is made to tell them instead.
    kind.run_test = lambda _, test: {"status": "Pass", "duration": 0.0, "test": test}
    try:
        told = _call("saltcheck.run_state_tests", sls, saltenv=env)
    except (Exception, SystemExit) as err:
        return [], f"{sls}: {_said(err)}"
    finally:
        kind.run_test = run_test
    named = [(name, answer["test"]) for each in told for name, answer in each.get(sls, {}).items()]
    return [{"name": f"{sls}: {name}", "check": test} for name, test in named], ""


def _one(test: Mapping[str, Any]) -> dict[str, Any]:
    """Run one test to its end, whatever it raises."""
    global _spent
    if _spent:
        _salt.renewed()
        _spent = False
    began = time.monotonic()
    try:
        answer = _asked(test["check"])
        _saltcheck().SaltCheck._call_salt_command = lambda *_: answer
        told = _salt.cmd("saltcheck.run_test", test=dict(test["check"]))
        passed, message = judged(told, str(test["check"].get("module_and_function")))
    except (Exception, SystemExit) as err:
        passed, message = False, _said(err)
    return _result(test["name"], passed, time.monotonic() - began, message)


def _said(err: BaseException) -> str:
    return f"{type(err).__name__}: {err}"


def judged(told: Any, fun: str) -> tuple[bool, str]:
    """Return whether saltcheck's answer is a pass, and what it says otherwise."""
    if not isinstance(told, Mapping):
        return False, str(told)
    status = str(told.get("status"))
    if status == "Pass":
        return True, ""
    if status == "Skip":
        return True, SKIPPED
    if status == "Fail - invalid test":
        return False, f"saltcheck cannot run it: is there a function {fun} here, and is its assertion whole?"
    parts = [part["status"] for part in told.values() if isinstance(part, Mapping) and part.get("status") != "Pass"]
    return False, "; ".join(map(str, parts or [status]))


# In the machine


def config(order: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the minion's config as the tests need it."""
    import salt.client  # here, so that what is forked has it already
    import salt.config

    found = dict(salt.config.minion_config(file)) | {"saltcheck_parallel": False}
    return found | {name: order[name] for name in ("saltenv", "pillarenv") if order.get(name)}


def _together(order: Mapping[str, Any], workers: int, how: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results of the tests, by so many processes."""
    with ProcessPoolExecutor(workers, get_context("fork"), initializer=begin, initargs=(how,)) as pool:
        return results(order, lambda work, each: list(pool.map(work, each)))


def _watch(file: str, master: str, key: str) -> None:
    """Note what the tests ask the master for, where that is noted for the states."""
    if os.path.exists(file):
        from saltext.immutable.builder.states.trace import Trace
        from saltext.immutable.builder.states.traced_salt_call import watch

        watch(Trace(file, master, key.encode()))


def main(file: str = _CONFIG) -> int:
    """Run the tests that standard input orders."""
    order = json.load(sys.stdin)
    if order.get("trace"):
        _watch(*order["trace"])
    many = any(test["sls"] is not None for test in order["tests"])
    cores = len(os.sched_getaffinity(0))
    # Each makes its own Salt: one that is forked would share its sockets.
    workers = cores if many else min(cores, len(order["tests"]))
    how = config(order, file)
    try:
        found = _together(order, workers, how)
    except BrokenProcessPool:  # rarely a process dies while another one is forked: one alone forks nobody
        found = _together(order, 1, how)
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
