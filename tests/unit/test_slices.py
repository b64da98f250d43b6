"""The exhaustive tests are divided into slices: each is in one, none takes too long, and a run says what it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.slices import Slice, divided, may_hold

ROOT = Path(__file__).parents[2]
LONGEST = 20.0
"""Minutes of a slice in CI."""
OF = int(re.search(r"^SLICES=(\d+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)[1])
MINUTES = st.dictionaries(st.text("abc/", min_size=1), st.sampled_from([0.2, 1.0, 2.5, 8.0]), max_size=20)

CONFTEST = """
from support import slices

def pytest_configure(config):
    config.addinivalue_line("markers", slices.MARK)
    config.pluginmanager.register(slices.Plugin.from_environment(), "slices")
"""
TESTS = """
import pytest
from support.slices import full

LONG = full("takes long", minutes=3)

def test_daily(): ...

@LONG
def test_a(): ...

@LONG
def test_b(): ...

@pytest.mark.parametrize("n", [0, pytest.param(1, marks=full("many", minutes=2, apart=True))])
def test_c(n): ...
"""
LISTING = """
import json, sys
import pytest
from support import slices

class Listing:
    def pytest_collection_finish(self, session):
        of, minutes = int(sys.argv[1]), slices.weights(session.items)
        parts = [[i.nodeid for i in slices.chosen(session.items, slices.Slice(k, of))] for k in range(1, of + 1)]
        takes = [sum(minutes[name] for name in names) for names in slices.divided(minutes, of)]
        full = [item.nodeid for item in session.items if item.get_closest_marker("full")]
        print("LISTING", json.dumps({"parts": parts, "takes": takes, "full": full}))

sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *sys.argv[2:]], plugins=[Listing()]))
"""


def environment(**settings: str) -> dict[str, str]:
    mine = ("IMMUTABLE_FULL", "IMMUTABLE_SLICE", "PYTEST_ADDOPTS", "SIM_KILLS", "SIM_SEEDS")
    outer = {key: value for key, value in os.environ.items() if key not in mine and not key.startswith("PYTEST_XDIST")}
    return {**outer, "PYTHONPATH": str(ROOT / "tests"), **settings}


@given(minutes=MINUTES, of=st.integers(1, 9), chance=st.randoms(use_true_random=False))
def test_each_name_is_in_one_slice_which_is_the_same_wherever_it_is_asked_for(minutes, of, chance):
    slices = divided(minutes, of)
    assert len(slices) == of
    assert sorted(name for names in slices for name in names) == sorted(minutes)
    assert slices == divided({name: minutes[name] for name in chance.sample(sorted(minutes), len(minutes))}, of)


@given(minutes=MINUTES, of=st.integers(1, 9))
def test_slices_take_about_the_same_time(minutes, of):
    takes = [sum(minutes[name] for name in names) for names in divided(minutes, of)]
    assert max(takes) - min(takes) <= max(minutes.values(), default=0.0) + 1e-9


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "3", "a/b", "1/3/5", "-1/3", ""])
def test_what_is_no_slice_is_named(text):
    with pytest.raises(ValueError, match=re.escape(f"SLICE={text}: write k/n")):
        Slice.read(text)


@pytest.fixture(scope="module")
def tree() -> dict[str, list]:
    """What pytest collects in all files that mark anything as exhaustive."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if may_hold(path)]
    files.remove(Path(__file__))
    words = [sys.executable, "-c", LISTING, str(OF), *map(str, files)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment())
    found = re.search(r"^LISTING (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return json.loads(found[1])


def test_each_exhaustive_test_of_this_tree_is_in_exactly_one_slice(tree):
    assert len(tree["full"]) > 30
    assert sorted(name for names in tree["parts"] for name in names) == sorted(tree["full"])


def test_no_slice_of_ci_is_empty_or_takes_too_long(tree):
    assert min(tree["takes"]) > 0
    assert max(tree["takes"]) <= LONGEST, "raise SLICES in .ci/run, or mark as apart what needs nothing of its file"


def test_nothing_else_decides_what_is_exhaustive():
    others = [path for path in (ROOT / "tests").rglob("*.py") if re.search("IMMUTABLE_(FULL|SLICE)", path.read_text())]
    assert sorted(others) == [ROOT / "tests/support/slices.py", Path(__file__)]


@pytest.fixture
def ran(tmp_path: Path):
    """Return what runs pytest on a small tree: its exit code, and what it said."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra -v --strict-markers -p no:cacheprovider\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)

    def run(*words: str, **settings: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(**settings))
        return done.returncode, done.stdout + done.stderr

    return run


def passed(said: str) -> list[str]:
    return re.findall(r"^test_it.py::test_(\S+) PASSED", said, re.MULTILINE)


def test_a_daily_run_says_why_it_skips_the_exhaustive_ones(ran):
    code, said = ran()
    assert (code, passed(said)) == (0, ["daily", "c[0]"])
    assert "takes long: only in `make test-full`" in said and "many: only in `make test-full`" in said


def test_the_full_run_runs_everything(ran):
    code, said = ran(IMMUTABLE_FULL="1")
    assert (code, passed(said)) == (0, ["daily", "a", "b", "c[0]", "c[1]"])


@pytest.mark.parametrize(("number", "runs"), [(1, ["a", "b"]), (2, ["c[1]"])])
def test_a_slice_runs_its_exhaustive_tests_and_says_how_to_run_it_by_hand(ran, number, runs):
    code, said = ran(IMMUTABLE_FULL="1", IMMUTABLE_SLICE=f"{number}/2")
    assert (code, passed(said)) == (0, runs)
    *_, last, closing = said.splitlines()
    assert re.fullmatch(rf"slice {number}/2 of commit \S+; by hand: make test-full SLICE={number}/2", last)
    assert f"{len(runs)} passed" in closing


def test_files_without_exhaustive_tests_are_not_even_collected_for_a_slice(ran, tmp_path):
    (tmp_path / "test_daily.py").write_text("raise AssertionError('collected')")
    assert ran(IMMUTABLE_FULL="1")[0] == pytest.ExitCode.INTERRUPTED
    code, said = ran("--durations=3", "-vv", IMMUTABLE_FULL="1", IMMUTABLE_SLICE="2/2")
    assert (code, passed(said)) == (0, ["c[1]"])
    assert said.splitlines()[-2].startswith("slice 2/2 of commit "), "also below the slowest"


def test_what_is_in_a_slice_does_not_depend_on_what_else_is_asked_for(ran):
    code, said = ran("-k", "test_c", IMMUTABLE_FULL="1", IMMUTABLE_SLICE="2/2")
    assert (code, passed(said)) == (0, ["c[1]"])


def test_a_slice_may_be_empty_only_where_there_are_more_slices_than_tests(ran):
    code, said = ran(IMMUTABLE_FULL="1", IMMUTABLE_SLICE="3/3")
    assert (code, "no test: there are fewer exhaustive units than slices" in said) == (0, True)
    assert ran("-k", "nothing", IMMUTABLE_FULL="1", IMMUTABLE_SLICE="1/2")[0] == pytest.ExitCode.NO_TESTS_COLLECTED
    assert ran("-k", "nothing")[0] == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_wrong_slice_stops_pytest(ran):
    code, said = ran(IMMUTABLE_FULL="1", IMMUTABLE_SLICE="9/8")
    assert (code, "SLICE=9/8: write k/n" in said) == (pytest.ExitCode.USAGE_ERROR, True)
