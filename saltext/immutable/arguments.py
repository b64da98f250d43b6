"""What functions that Salt calls take: an argument that one does not take is an error, with the right word.

Salt itself prints the help of a runner function for a wrong or missing argument, and salt-run then exits with 0: a
pipeline would go on as if it had rolled.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from saltext.immutable.text import quoted

Choices = Mapping[str, Callable[[], Iterable[str]]]
Raise = Callable[[str], Exception]
_NAMES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    list: "a list",
    dict: "a mapping",
}


def check_all(module: dict[str, Any], error: Raise, choices: Choices | None = None) -> None:
    """Let each public function of a Salt module refuse arguments that it does not take or that are of a wrong type.

    ``module``: its globals. ``error``: makes the exception from a sentence. ``choices``: argument to what there is of
    it, for the message when it is missing. Types are those of the annotations. What the module only imported is not
    offered to Salt.
    """
    alias, names = module.get("__func_alias__", {}), []
    for name, function in list(module.items()):
        if name.startswith("_") or not inspect.isfunction(function) or function.__module__ != module["__name__"]:
            continue
        names.append(name)
        module[name] = _checked(function, f"{module['__virtualname__']}.{alias.get(name, name)}", error, choices or {})
    module["__load__"] = names


def _checked(function: types.FunctionType, name: str, error: Raise, choices: Choices) -> types.FunctionType:
    signature, hints = inspect.signature(function), typing.get_type_hints(function)
    open_ = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # Salt adds keywords of its own to functions that take any.
        own = kwargs if open_ else {key: value for key, value in kwargs.items() if not key.startswith("__")}
        if why := mistake(signature, hints, args, own, choices):
            raise error(f"{name}: {why}")
        bound = signature.bind(*args, **own)
        for key in bound.arguments.keys() & hints.keys():
            if not _fits(bound.arguments[key], hints[key]):  # Salt read a name that looks like a number
                bound.arguments[key] = str(bound.arguments[key])
        return function(*bound.args, **bound.kwargs)

    def call(*args: Any, **kwargs: Any) -> Any:
        return run(args, kwargs)

    # Salt puts what belongs to a call into the globals of a function, which must be those of its module.
    found = types.FunctionType(call.__code__, function.__globals__, function.__name__, None, call.__closure__)
    found.__doc__, found.__module__, found.__qualname__ = function.__doc__, function.__module__, function.__qualname__
    found.__dict__["__signature__"] = _open(signature)
    return found


def _open(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature that also takes what the function does not, so that Salt leaves the refusal to it."""
    kinds = inspect.Parameter
    known = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    more = [kinds("more", kinds.VAR_POSITIONAL), kinds("unknown", kinds.VAR_KEYWORD)]
    return signature.replace(parameters=[*known, *more])


def mistake(
    signature: inspect.Signature,
    hints: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    choices: Choices,
) -> str | None:
    """Return what is wrong with the arguments of a call and how to correct it, None if nothing is."""
    known = [name for name, one in signature.parameters.items() if one.kind is not one.VAR_KEYWORD]
    takes = f"it takes {', '.join(known)}" if known else "it takes no arguments"
    open_ = len(known) < len(signature.parameters)
    for word in kwargs if not open_ else ():
        if word not in known:
            near = difflib.get_close_matches(word, known, 1)
            return f"there is no argument {_word(word)}; " + (f"did you mean {near[0]}?" if near else takes)
    if len(args) > len(known):
        return f"{quoted(args[len(known)])} is one argument too many; {takes}"
    if twice := next((name for name in known[: len(args)] if name in kwargs), None):
        return f"{twice} is given twice: {quoted(args[known.index(twice)])} and {quoted(kwargs[twice])}"
    given = {**dict(zip(known, args, strict=False)), **kwargs}
    for name in known:
        if name not in given and signature.parameters[name].default is inspect.Parameter.empty:
            there = ""
            with suppress(Exception):  # of a pillar that cannot be read nothing is said here
                there = ", ".join(choices[name]()) if name in choices else ""
            return f"{name} is missing; " + (f"there are: {there}" if there else takes)
    for name in given.keys() & hints.keys():
        if not _fits(given[name], hints[name]) and not _is_text_that_looks_like_a_number(given[name], hints[name]):
            return f"{name} must be {_said(hints[name])}, not {quoted(given[name])}"
    return None


def _word(word: str) -> str:
    return word if word.isidentifier() and len(word) < 40 else quoted(word)


def _types(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value: object, hint: Any) -> bool:
    for one in _types(hint):
        if one is Any or (one is not int and isinstance(value, one)) or (type(value) is int and one in (int, float)):
            return True
    return False


def _is_text_that_looks_like_a_number(value: object, hint: Any) -> bool:
    return str in _types(hint) and isinstance(value, int | float) and not isinstance(value, bool)


def _said(hint: Any) -> str:
    return " or ".join(_NAMES[one] for one in _types(hint) if one in _NAMES)
