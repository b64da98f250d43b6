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
_UNIONS = (types.UnionType, typing.Union)
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
    it, for the message when it is missing. Types are those of the annotations; a reader in one (as in
    ``Annotated[str, reading.name]``) raises ValueError for a wrong value. What the module only imported is not offered
    to Salt.
    """
    alias, names = module.get("__func_alias__", {}), []
    for name, function in list(module.items()):
        if name.startswith("_") or not inspect.isfunction(function) or function.__module__ != module["__name__"]:
            continue
        names.append(name)
        module[name] = _checked(function, f"{module['__virtualname__']}.{alias.get(name, name)}", error, choices or {})
    module["__load__"] = names


def _checked(function: types.FunctionType, name: str, error: Raise, choices: Choices) -> types.FunctionType:
    signature, hints = inspect.signature(function), typing.get_type_hints(function, include_extras=True)
    open_ = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # Salt adds keywords of its own to functions that take any.
        own = kwargs if open_ else {key: value for key, value in kwargs.items() if not key.startswith("__")}
        if why := mistake(signature, args, own, choices):
            raise error(f"{name}: {why}")
        bound = signature.bind(*args, **own)
        for key in (each for each in hints if each in bound.arguments):
            try:
                bound.arguments[key] = taken(key, bound.arguments[key], hints[key])
            except ValueError as err:
                raise error(f"{name}: {err}") from err
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
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], choices: Choices
) -> str | None:
    """Return which argument of a call is one too many, missing or given twice, None if none is; see `taken`."""
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
    return None


def taken(name: str, value: Any, hint: Any) -> Any:
    """Return the value of an argument as its function takes it; raise ValueError with a sentence for a wrong one."""
    fitting = [one for one in _alternatives(hint) if _fits(value, one)]
    if not fitting:
        texts = [one for one in _alternatives(hint) if str in _types(one)]
        if not texts or isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be {_said(hint)}, not {quoted(value)}")
        value, fitting = str(value), texts  # Salt read a name that looks like a number
    for read in getattr(fitting[0], "__metadata__", ()):
        try:
            read(value)
        except ValueError as err:
            raise ValueError(f"{name}: {err}") from err
    return value


def _word(word: str) -> str:
    return word if word.isidentifier() and len(word) < 40 else quoted(word)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union; one that has a reader is one, whatever it is of."""
    return typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)


def _types(hint: Any) -> tuple[Any, ...]:
    """Return all types of a hint, without readers."""
    if typing.get_origin(hint) is typing.Annotated:
        return _types(hint.__origin__)
    found = _alternatives(hint)
    return found if found == (hint,) else tuple(one for each in found for one in _types(each))


def _fits(value: object, hint: Any) -> bool:
    for one in _types(hint):
        if one is Any or (one is not int and isinstance(value, one)) or (type(value) is int and one in (int, float)):
            return True
    return False


def _said(hint: Any) -> str:
    return " or ".join(_NAMES[one] for one in _types(hint) if one in _NAMES)
