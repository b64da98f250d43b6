"""What interpreters are told to run and to load, by their command lines. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os.path import basename
from typing import Literal, NamedTuple

Role = Literal["script", "file", "folder", "paths", "module", "input", "argument", "any"]
"""What an argument is: the program itself, another file of code, a folder or a list (``:``) in which code is searched,
a module by its name, nothing (the program comes from standard input), something of the program's own, or unknown."""


class Reference(NamedTuple):
    """One thing that an interpreter is told to run or to load."""

    role: Role
    value: str


@dataclass(frozen=True)
class Grammar:
    """How an interpreter reads its command line: its options, by what the value of each is."""

    value: str = ""
    """Options whose value is data."""
    next: str = ""
    """The same, but the value is always the next word: ``-eo pipefail``."""
    rest: str = ""
    """Letters that take the rest of their word, if there is any, as data."""
    script: str = ""
    file: str = ""
    folder: str = ""
    paths: str = ""
    module: str = ""
    patch: str = ""
    """Options whose value is ``name=list``."""
    setting: str = ""
    """Options whose value is ``name=value``, one of _SETTINGS."""
    debugger: str = ""
    """Options whose value, attached, is ``:module``."""
    characters: str = ""
    """Letters after which characters of a set of their own may follow: _CHARACTERS."""
    code: str = ""
    """Options whose value is code, in place of a script."""
    snippet: str = ""
    """The same, beside a script."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Options without a value, to what the first operand is after them."""
    ends: str = ""
    """Options after whose value every word is an argument of the program."""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of words, to the role of what follows up to ``=``."""
    style: Literal["letters", "attached", "words"] = "letters"
    """``letters``: ``-ab`` is ``-a -b``; ``attached``: it is ``-a`` with value ``b``; ``words``: it is one option."""
    permutes: bool = False
    """Options may follow operands, and long ones may be cut short, as GNU getopt does it."""
    first: str = "script"
    """What the first operand is: ``script``, ``code``, ``data``, ``class`` or ``argument``."""
    operands: Literal["argument", "data"] = "argument"
    """What further operands are; ``data`` are never run."""
    plus: bool = False
    """``+x`` is an option, and ``-`` ends them."""

    @cached_property
    def roles(self) -> Mapping[str, str]:
        """Option to what its value is."""
        return {option: kind for kind in _KINDS for option in getattr(self, kind).split()}


_KINDS = (
    *("value", "next", "rest", "script", "file", "folder", "paths", "module", "patch", "setting"),
    *("debugger", "characters", "code", "snippet"),
)
"""Fields of a grammar that hold options with a value."""
_SHELL = Grammar(value="--emulate", next="-o +o", flags={"-c": "code", "-s": "input"}, plus=True)
_BASH = Grammar(next="-o +o -O +O", file="--rcfile --init-file", flags={"-c": "code", "-s": "input"}, plus=True)
_CSH = Grammar(flags={"-c": "code", "-s": "input"})
_PYTHON = Grammar(value="-W -X -Q --check-hash-based-pycs --jit", code="-c", module="-m", ends="-c -m")
_AWK = Grammar(value="-F -v", script="-f --file", first="code", operands="data")
_GAWK = Grammar(
    value="-F -v --field-separator --assign",
    script="-f --file -E --exec",
    module="-i --include -l --load",
    code="-e --source",
    rest="-d -D -L -o -p",
    ends="-E --exec",
    permutes=True,
    first="code",
    operands="data",
)
_VIM = Grammar(
    value="-T --servername --startuptime",
    file="-S -u -U -s -l",
    snippet="-c --cmd",
    rest="-i -w -W -V -p -o -O -r -t -q",
    permutes=True,
    first="data",
    operands="data",
)
GRAMMARS: Mapping[str, Grammar] = {
    **dict.fromkeys(("sh", "dash", "ash", "hush", "posh", "yash", "ksh", "lksh", "mksh", "zsh"), _SHELL),
    **dict.fromkeys(("bash", "rbash"), _BASH),
    **dict.fromkeys(("csh", "bsd-csh", "tcsh"), _CSH),
    **dict.fromkeys(("python", "pypy", "micropython"), _PYTHON),
    **dict.fromkeys(("awk", "mawk", "original-awk"), _AWK),
    "gawk": _GAWK,
    "fish": Grammar(value="-d -o -f -p --debug --debug-output --features", code="-c --command",
                    snippet="-C --init-command"),
    "perl": Grammar(code="-e -E", folder="-I", module="-M -m", rest="-D -F -V -i -x", debugger="-d", characters="-C"),
    "ruby": Grammar(value="-E --encoding --enable --disable", code="-e", paths="-I", folder="-C",
                    module="-r --require", rest="-F -K -T -W -i -x"),
    "node": Grammar(
        value="-C --conditions --title --icu-data-dir --inspect-port --env-file",
        file="--openssl-config --snapshot-blob",
        module="-r --require --import --loader --experimental-loader",
        code="-e -p -pe --eval --print",
        style="attached",
    ),
    "php": Grammar(
        value="-S",
        script="-f --file -F --process-file",
        file="-z --zend-extension",
        folder="-t --docroot -c --php-ini",
        setting="-d --define",
        code="-r --run -R --process-code -B --process-begin -E --process-end",
    ),
    "lua": Grammar(module="-l", snippet="-e"),
    "luajit": Grammar(module="-l", snippet="-e", rest="-j -O -b"),
    "tclsh": Grammar(value="-encoding", style="words"),
    "expect": Grammar(script="-f", file="-b", snippet="-c", value="-D"),
    "sed": Grammar(script="-f --file", code="-e --expression", value="-l --line-length", rest="-i", permutes=True,
                   first="code", operands="data"),
    "make": Grammar(value="-o -W -E --old-file --what-if --eval", script="-f --file --makefile",
                    folder="-I -C --include-dir --directory", rest="-j -l -O", permutes=True, first="data",
                    operands="data"),
    "vim": _VIM,
    "gdb": Grammar(
        value="-p --pid -pid -c -core --core -s -symbols -e -exec -b -l -tty --tty -d -directory --directory",
        file="-x -command --command -ix -init-command --init-command",
        code="-ex -eval-command --eval-command -iex -init-eval-command --init-eval-command",
        style="attached", permutes=True, first="data", operands="data",
    ),
    "java": Grammar(
        value="--add-modules --add-opens --add-exports --add-reads --limit-modules --enable-native-access --source -d",
        script="-jar",
        paths="-cp -classpath --class-path -p --module-path --upgrade-module-path",
        patch="--patch-module",
        module="-m --module",
        ends="-jar -m --module",
        prefixes={
            "-javaagent:": "file", "-agentpath:": "file", "-agentlib:": "module", "@": "file",
            "-Xbootclasspath/a:": "paths", "-Xbootclasspath/p:": "paths", "-Xbootclasspath:": "paths",
            "-Djava.class.path=": "paths", "-Djava.library.path=": "paths", "-Djava.ext.dirs=": "paths",
            "-Djava.endorsed.dirs=": "paths", "-Djava.system.class.loader=": "module",
            "-XX:Flags=": "file", "-XX:VMOptionsFile=": "file", "-XX:SharedArchiveFile=": "file",
        },
        style="words",
        first="class",
    ),
    "beam": Grammar(folder="-pa -pz", style="words", permutes=True, first="argument"),
    **dict.fromkeys(("dotnet", "mono"), Grammar(style="words", permutes=True, first="argument")),
    "uwsgi": Grammar(script="--wsgi-file --file", folder="--pythonpath --python-path", paths="--plugin-dir",
                     permutes=True, first="argument"),
}  # fmt: skip
"""Interpreter to how it reads its command line."""
_SETTINGS = {
    **dict.fromkeys(("auto_prepend_file", "auto_append_file", "extension", "zend_extension"), "module"),
    **dict.fromkeys(("include_path", "extension_dir"), "paths"),
}
"""Settings of PHP that load code."""
_ALIASES = {
    **{"nodejs": "node", "wish": "tclsh", "gmake": "make", "bmake": "make"},
    **dict.fromkeys(("vi", "view", "ex", "nvim", "rvim"), "vim"),
}
_UNKNOWN = (
    *("R", "Rscript", "bun", "clisp", "csi", "deno", "emacs", "gjs", "groovy", "guile"),
    *("hhvm", "jimsh", "julia", "nu", "ocaml", "ocamlrun", "octave", "pwsh", "qjs", "racket", "sbcl", "swipl"),
    *("tinyscheme", "xonsh"),
)
"""Interpreters of whose options nothing is known here: every file that they are given counts."""
_BUSYBOX = ("busybox", "toybox")
_NAMES = "|".join(map(re.escape, [*GRAMMARS, *_ALIASES, *_UNKNOWN, *_BUSYBOX]))
_VARIANTS = "basic|cgi|cli|dbg|gtk3?|lucid|multiarch|nox|pgtk|smp|static|tiny|athena|x11|[a-z0-9_]+-linux-gnu\\w*"
_NAME = re.compile(rf"({_NAMES})(?:-cgi)?(?:-?[\d.]+[a-z]?)?(?:[-.](?:{_VARIANTS}))*")
"""``python3.11-dbg``, ``vim.basic``, ``php-cgi8.2``, ``guile-3.0``."""
_CHARACTERS = re.compile(r"[IOEioADSLa\d]*")
"""What may follow ``perl -C``."""
_MODULES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("python", "pypy", "micropython"), ("{}.py", "{}/__main__.py", "{}/__init__.py", "{}.so", "{}.pyc")
    ),
    **dict.fromkeys(("lua", "luajit"), ("{}.lua", "{}/init.lua", "{}.so")),
    "gawk": ("{}", "{}.awk", "{}.so"),
    "java": ("{}.class",),
    "php": ("{}",),
    "node": ("node_modules/{}", "node_modules/{}.js"),
}
"""Interpreter to the files of a module that it searches in the working directory."""
_DOTTED = ("python", "pypy", "micropython", "lua", "luajit", "java")
"""``a.b`` is ``a/b``."""
_FILES: Mapping[str, tuple[str, ...]] = {
    "node": (".js", ".cjs", ".mjs", ".json", "/index.js", "/package.json"),
    "ruby": (".rb", ".so"),
    "gawk": (".awk", ".so"),
}
"""Interpreter to what it adds to the path of a module that it does not find."""


def kind_of(exe: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """Return which interpreter a program is, and its arguments; '' in place of the interpreter if it is none.

    ``exe``: the path of its executable; ``words``: its command line, from its name on.
    """
    found = _NAME.fullmatch(basename(exe.removesuffix(" (deleted)")))
    kind, arguments = found[1] if found else "", list(words[1:])
    if kind in _BUSYBOX:
        applet = basename(words[0].lstrip("-")) if words else ""
        if applet in _BUSYBOX and arguments:
            applet = arguments.pop(0)
        kind = applet if applet in GRAMMARS or applet in _ALIASES else ""
    return _ALIASES.get(kind, kind), arguments


def module_files(kind: str, name: str) -> tuple[str, ...]:
    """Return the files, relative to the working directory or absolute, that a module may be which is named so."""
    name = name.removeprefix("file://")
    if name.startswith(("/", "./", "../")) or (kind in ("php", "gawk") and "/" in name):
        return (name, *(f"{name}{more}" for more in _FILES.get(kind, ())))
    inner = name.replace(".", "/") if kind in _DOTTED else name
    return tuple(template.format(inner) for template in _MODULES.get(kind, ()))


def is_path(name: str) -> bool:
    """Tell whether the name of a module is the path of its file."""
    return name.removeprefix("file://").startswith(("/", "./", "../"))


def references(kind: str, words: Sequence[str]) -> list[Reference]:
    """Return what an interpreter is told to run and to load, in the order of its arguments ``words``."""
    if not kind:
        return []
    grammar = GRAMMARS.get(kind)
    return _Reading(grammar, words).read() if grammar else [Reference("any", word) for word in words if word]


class _Reading:
    """One command line, read once."""

    def __init__(self, grammar: Grammar, words: Sequence[str]) -> None:
        self.grammar = grammar
        self.left = deque(words)
        self.first = grammar.first
        self.ended = False
        self.has_code = False
        self.operands: list[str] = []
        self.found: list[Reference] = []

    def read(self) -> list[Reference]:
        """Return all references."""
        while self.left and not self.ended:
            word = self.left.popleft()
            if prefix := next((each for each in self.grammar.prefixes if word.startswith(each)), None):
                role, value = self.grammar.prefixes[prefix], word.removeprefix(prefix)
                self._take(role, value if role == "paths" else value.partition("=")[0])
            elif word == "--" or (word == "-" and self.grammar.plus):
                break
            elif len(word) > 1 and word.startswith(("-", "+") if self.grammar.plus else "-"):
                self._option(word)
            else:
                self.operands.append(word)
                self.ended = bool(word) and not self.grammar.permutes
        return [*self.found, *self._of_operands([*self.operands, *self.left])]

    def _option(self, word: str) -> None:
        if self.grammar.style == "letters" and not word.startswith("--"):
            self._letters(word)
            return
        name, equals, value = word.partition("=")
        option = self._known(name)
        if option in self.grammar.flags:
            self.first = self.grammar.flags[option]
        elif option:
            self._take(self.grammar.roles[option], value if equals else self._next())
            self._end_after(option)
        elif self.grammar.style == "attached" and word[:2] in self.grammar.roles:
            self._take(self.grammar.roles[word[:2]], word[2:].removeprefix("="))
        elif self.grammar.operands != "data":
            self.found.append(Reference("argument", word))

    def _known(self, name: str) -> str:
        """Return the option that is written so, or ''."""
        options = [*self.grammar.roles, *self.grammar.flags]
        spelled = [name]
        if self.grammar.style == "attached":
            spelled += [name.replace("_", "-"), name[1:] if name.startswith("--") else name]
        if found := next((each for each in spelled if each in options), ""):
            return found
        cut = self.grammar.permutes and self.grammar.style == "letters" and len(name) > 2
        return next((each for each in options if cut and each.startswith(name)), "")

    def _letters(self, word: str) -> None:
        """Read options of one letter each, of which one may have the rest of the word as its value."""
        at = 1
        while at < len(word):
            option, at = word[0] + word[at], at + 1
            role = self.grammar.roles.get(option, "")
            if option in self.grammar.flags:
                self.first = self.grammar.flags[option]
            elif role == "next":
                self._next()
            elif role == "characters" and (skipped := _CHARACTERS.match(word, at)):
                at = skipped.end()
            elif role in ("rest", "debugger"):
                self._take(role, word[at:])
                return
            elif role:
                self._take(role, word[at:] or self._next())
                self._end_after(option)
                return

    def _next(self) -> str:
        return self.left.popleft() if self.left else ""

    def _end_after(self, option: str) -> None:
        if option in self.grammar.ends.split():
            self.ended, self.first = True, self.grammar.operands

    def _take(self, role: str, value: str) -> None:
        """Note the value of an option."""
        if role in ("code", "script"):
            self.first = self.grammar.operands
        self.has_code = self.has_code or role in ("code", "snippet")
        if role == "setting":
            name, _, value = value.partition("=")
            role = _SETTINGS.get(name.strip(), "")
        if role == "patch":
            role, value = "paths", value.partition("=")[2]
        if role == "debugger":
            role, value = "module", value.partition(":")[2].partition("=")[0]
        if role == "module" and value.startswith("lib="):
            role, value = "folder", value.removeprefix("lib=")
        self.found += _reference(role, value.strip("'\" ") if role in ("module", "paths") else value)

    def _of_operands(self, operands: list[str]) -> Iterator[Reference]:
        if self.first == "data":
            return
        operands = [word for word in operands if word]
        if self.first == "input" or (self.first == "script" and not operands and not self.has_code):
            yield Reference("input", "")
        elif self.first == "script" and operands:
            yield from _reference("script", operands.pop(0))
        elif self.first == "class" and operands:
            name = operands.pop(0)
            searched = any(each.role == "paths" for each in self.found)
            yield from _reference("script" if name.endswith(".java") else "" if searched else "module", name)
        elif self.first == "code":
            operands = operands[1:]
        if self.grammar.operands != "data":
            yield from (Reference("argument", word) for word in operands)


def _reference(role: str, value: str) -> Iterator[Reference]:
    """Yield what the value of an option or an operand refers to; nothing if that is data."""
    if value == "-" and role in ("script", "file"):
        yield Reference("input", "")
    known: Role
    for known in ("script", "file", "folder", "paths", "module"):
        if role == known and (value not in ("", "-") or known == "paths"):
            yield Reference(known, value)


def paths_in(word: str) -> Iterator[str]:
    """Yield what may be a path in an argument: ``x``, ``-fx``, ``--file=x``, ``key=x``, ``-agent:x``."""
    if not word.startswith("-"):
        yield word
    elif word[2:].startswith("/"):
        yield word[2:]
    yield from (part for mark in "=:" if (part := word.partition(mark)[2]))
