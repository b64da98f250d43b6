"""Every function of Salt's modules is in one table of the guard: a new release shows what it adds."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import salt.minion
import salt.modules

from saltext.immutable.guard import function_tables, policy
from saltext.immutable.guard.refused_functions import CHANGE, REFUSED_MODULES, dangerous

SALT = Path(salt.modules.__file__).parent
REFUSED_AS_A_WHOLE = set(REFUSED_MODULES.split())
ALLOWED = set(policy.full_names(function_tables.READ)) | set(policy.full_names(function_tables.OPERATE))
NOT_EVERYWHERE = {"saltutil.refresh_resources"}
"""What we allow and Salt 3007 does not have."""


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those below ``if`` and ``try`` too."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            handlers = [inner for handler in getattr(node, "handlers", []) for inner in handler.body]
            yield from statements([*node.body, *node.orelse, *handlers])
        else:
            yield node


def assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    return {
        target.id: node.value
        for node in statements(body)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_function(value: ast.expr, known: set[str]) -> bool:
    """Whether a name is a second one of a function: ``ls = list_tab``, ``ls = alias_function(list_tab, "ls")``."""
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in ("alias_function", "namespaced_function")
    return isinstance(value, ast.Name) and value.id in known


def names_in(value: ast.expr) -> set[str]:
    """The functions that a second name could stand for."""
    parts = [value, *value.args] if isinstance(value, ast.Call) else [value]
    return {part.id for part in parts if isinstance(part, ast.Name)}


def offered(source: str, stem: str) -> tuple[set[str], set[str]]:
    """The names under which Salt could load a module, and the functions that it would have."""
    body = ast.parse(source).body
    defined = {node.name: node for node in statements(body) if isinstance(node, ast.FunctionDef)}
    values = assigned(body)
    renamed = ast.literal_eval(values.get("__func_alias__", ast.Dict([], [])))
    found = set(defined) | {name for name, value in values.items() if is_function(value, set(defined))}
    names = {ast.literal_eval(values["__virtualname__"]) if "__virtualname__" in values else stem}
    aliases = ast.literal_eval(values.get("__virtual_aliases__", ast.Tuple([])))
    names |= {aliases} if isinstance(aliases, str) else set(aliases)
    returns = [node.value for node in ast.walk(defined.get("__virtual__", ast.Pass())) if isinstance(node, ast.Return)]
    names |= {node.value for node in returns if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return names, {renamed.get(name, name) for name in found if not name.startswith("_")}


def salts_own() -> set[str]:
    """Each function that a module of Salt could offer, on whatever system."""
    found = set()
    for path in SALT.glob("[!_]*.py"):
        names, inside = offered(path.read_text(), path.stem)
        found |= {f"{name}.{function}" for name in names for function in inside}
    return found


def tables_of(fun: str) -> list[str]:
    module, _, name = fun.partition(".")
    tables = {"read": function_tables.READ, "operate": function_tables.OPERATE, "change": CHANGE}
    found = [kind for kind, table in tables.items() if name in table.get(module, "").split()]
    return [*found, *(["closed"] if module in REFUSED_AS_A_WHOLE else [])]


def test_a_module_is_read_as_salts_loader_reads_it():
    source = """
    __virtualname__ = "pkg"
    __virtual_aliases__ = ("apt",)
    __func_alias__ = {"list_": "list"}

    try:
        import apt

        def with_apt(): ...
    except ImportError:

        def without_apt(): ...

    def __virtual__():
        if apt:
            return "debs"
        return False, "no apt"

    def list_(): ...
    def _hidden(): ...

    ls = list_
    dir = salt.utils.functools.alias_function(list_, "dir")
    limit = 5
    """
    names, inside = offered(textwrap.dedent(source), "aptpkg")
    assert names == {"pkg", "apt", "debs"}
    assert inside == {"with_apt", "without_apt", "list", "ls", "dir"}
    assert offered("def run(): ...", "cmdmod") == ({"cmdmod"}, {"run"})


def test_each_function_of_salt_is_in_one_table():
    unclear = {fun: tables_of(fun) for fun in sorted(salts_own()) if len(tables_of(fun)) != 1}
    assert not unclear, "read each function, then give it its one place in function_tables.py or refused_functions.py"


def test_what_is_allowed_exists():
    own = {fun for fun in ALLOWED if fun.startswith("immutable.")}
    assert ALLOWED - salts_own() - own <= NOT_EVERYWHERE


def arguments() -> dict[str, list[str]]:
    """Each allowed function of Salt to the names of its positional arguments."""
    found = {}
    for path in SALT.glob("[!_]*.py"):
        source = path.read_text()
        names, body = offered(source, path.stem)[0], ast.parse(source).body
        values = assigned(body)
        renamed = ast.literal_eval(values.get("__func_alias__", ast.Dict([], [])))
        for node in statements(body):
            if isinstance(node, ast.FunctionDef):
                inside = [node.name, *(name for name, value in values.items() if node.name in names_in(value))]
                funs = {f"{name}.{renamed.get(one, one)}" for name in names for one in inside}
                found |= dict.fromkeys(funs & ALLOWED, [each.arg for each in node.args.args])
    return found


def test_each_environment_that_a_function_takes_by_position_is_known():
    environments = ("pillarenv", "saltenv")
    found = {
        fun: tuple(place for place, name in enumerate(names) if name in environments)
        for fun, names in arguments().items()
    }
    assert {fun: places for fun, places in found.items() if places} == function_tables.ENVIRONMENTS


NO_CONTENT = """
    file.access file.basename file.check_hash file.directory_exists file.dirname file.diskusage file.file_exists
    file.get_gid file.get_group file.get_hash file.get_mode file.get_sum file.get_uid file.get_user file.is_hardlink
    file.is_link file.list_backup file.list_backups file.lstat file.normpath file.path_exists_glob
    file.readdir file.readlink file.stats file.statvfs lowpkg.owner pillar.file_exists ps.disk_usage status.diskusage
"""
"""Functions that take a path and do not tell what is in that file."""


def test_each_function_that_tells_what_is_in_a_file_is_known():
    paths = {"config", "config_file", "conf_file", "path", "file", "filename", "paths"}
    found = {
        fun: (place, name) for fun, names in arguments().items() for place, name in enumerate(names) if name in paths
    }
    assert {fun: at for fun, at in found.items() if fun not in NO_CONTENT.split()} == function_tables.READS_FILES


def test_a_module_is_closed_as_a_whole_or_not():
    assert not REFUSED_AS_A_WHOLE & {*function_tables.READ, *function_tables.OPERATE, *CHANGE}


def test_each_function_that_is_refused_is_dangerous_to_allow_but_the_narrow_ones():
    narrow = set(function_tables.NARROW)
    refused = {fun for fun in salts_own() if policy.classify(fun, [], {}) == "change"}
    assert narrow <= refused
    assert {fun for fun in refused if not dangerous([fun])} == narrow


def test_a_function_that_only_its_arguments_hold_back_is_dangerous_to_allow():
    single = policy.full_names(function_tables.SINGLE_WORDS)
    for fun in (*function_tables.LIMITED, *single, "event.send", "service.restart"):
        assert dangerous([fun]) == [fun]


def tag_of(node: ast.expr) -> str:
    """``"manage_schedule"``, or what ``master_event(type="connected")`` makes."""
    if isinstance(node, ast.Call):
        return salt.minion.master_event(**{word.arg: ast.literal_eval(word.value) for word in node.keywords})
    return ast.literal_eval(node)


def test_each_event_that_moves_the_minion_is_known_by_its_tag():
    """Those are what ``handle_event`` compares tags with."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(salt.minion.Minion.handle_event)))
    tags = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tag.startswith":
            tags.append(tag_of(node.args[0]))
    assert len(tags) > 10
    assert not [tag for tag in tags if not tag.startswith(function_tables.TAGS_OF_THE_MINION)]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        pytest.param(["service.enable"], [], id="a unit is none of the image's, but no open door"),
        pytest.param(["shop.*", "test.ping"], [], id="of the unknown nothing is claimed"),
        pytest.param(["pkg.list_upgrades"], ["pkg.list_upgrades"], id="what asks other hosts"),
        pytest.param(["cmd.run"], ["cmd.run"], id="a command"),
        pytest.param(["c?d.*"], ["cmd.*"], id="by a glob"),
        pytest.param(["[!a]md.run_all"], ["cmd.run_all"], id="by any glob"),
        pytest.param(["file.w*"], ["file.write"], id="a file"),
        pytest.param(["state.sls", "state.sls*"], ["state.sls", "state.sls_exists", "state.sls_id"], id="each once"),
        pytest.param(["shop.run"], ["shop.run"], id="what is called run runs"),
        pytest.param(["shop.run_command"], ["shop.run_command"], id="also with a word after it"),
        pytest.param(["x.shell_out", "x.shellOut"], ["x.shell_out", "x.shellOut"], id="a shell, in any spelling"),
        pytest.param(["x.do_exec", "x.run*"], ["x.do_exec", "x.run*"], id="or before it, or by a glob"),
        pytest.param(["x.remote_cmd", "x.CMD"], ["x.remote_cmd", "x.CMD"], id="a command"),
        pytest.param(["shop.last_run", "shop.running", "shop.description", "shop.do_close"], [], id="but not these"),
        pytest.param(["schedule.list"], [], id="a part of a dangerous module may be none"),
        pytest.param(["event.send"], ["event.send"], id="what only its arguments hold back"),
    ],
)
def test_what_a_recipe_would_open(globs, expected):
    assert dangerous(globs) == expected


def test_everything_opens_everything():
    assert {"cmd.*", "file.write", "state.apply", "saltutil.sync_all", "chroot.*"} <= set(dangerous(["*.*"]))
