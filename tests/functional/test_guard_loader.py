"""The guard's tables against Salt's own loader: what a minion here really offers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from saltext.immutable.guard import function_tables, policy
from saltext.immutable.guard.refused_functions import CHANGE, REFUSED_MODULES

PROBE = """
import json, sys
import salt.config, salt.loader
root = sys.argv[1]
opts = salt.config.minion_config(None)
opts.update(root_dir=root, cachedir=root + "/cache", extension_modules=root + "/modules", file_client="local")
opts["grains"] = salt.loader.grains(opts)
print(json.dumps(sorted(salt.loader.minion_mods(opts))))
"""

INSTALLED = """
import json, sys
import salt.config, salt.loader, salt.minion
from saltext.immutable.guard import intake
root, found = sys.argv[1], {}
own = {"plain": {}, "cached": {"grains_cache": True}, "cached again": {"grains_cache": True}}
for name, more in {**own, "left out": {"disable_grains": ["immutable"], "disable_modules": ["immutable"]}}.items():
    intake.installed, opts = False, salt.config.minion_config(None)
    opts.update(root_dir=root, cachedir=root, extension_modules=root + "/modules", file_client="local", **more)
    opts["grains"] = salt.loader.grains(opts)
    salt.loader.minion_mods(opts)
    found[name] = intake.installed
print(json.dumps(found))
"""


def test_no_setting_of_a_minion_leaves_out_the_judge_of_jobs(tmp_path):
    probe = subprocess.run([sys.executable, "-c", INSTALLED, tmp_path], stdout=subprocess.PIPE, check=True, timeout=300)
    found = json.loads(probe.stdout.splitlines()[-1])
    assert found == {"plain": True, "cached": True, "cached again": True, "left out": True}


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> set[str]:
    """The functions of a minion on this host, this pack's own among them."""
    root = str(tmp_path_factory.mktemp("minion"))
    probe = subprocess.run([sys.executable, "-c", PROBE, root], stdout=subprocess.PIPE, check=True, timeout=300)
    return set(json.loads(probe.stdout.splitlines()[-1]))


def test_each_function_that_a_minion_offers_is_in_one_table(offered):
    tables = [set(policy.full_names(table)) for table in (function_tables.READ, function_tables.OPERATE, CHANGE)]
    closed = {fun for fun in offered if fun.partition(".")[0] in REFUSED_MODULES.split()}
    places = {fun: sum(fun in table for table in (*tables, closed)) for fun in offered}
    assert len(offered) > 500
    assert not {fun: places[fun] for fun in sorted(offered) if places[fun] != 1}


def test_what_a_minion_offers_runs_only_from_the_first_two_tables(offered):
    """Without arguments, as a name alone decides; ``state.test`` says ``test=True`` by itself."""
    runs = {fun for fun in offered if policy.classify(fun, [], {}) != "change"}
    known = {*policy.full_names(function_tables.READ), *policy.full_names(function_tables.OPERATE)}
    assert runs - {"event.send", "state.test"} <= known
    assert {"test.ping", "saltutil.find_job", "mine.get", "service.restart", "immutable.status"} <= runs
    assert not {"cmd.run", "state.apply", "saltutil.sync_all", "image.make_image"} & runs
