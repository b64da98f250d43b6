"""Watch templates as Salt renders them: the functions they call, and what they read of clock and network."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from saltext.immutable.builder.states import custom_code
from saltext.immutable.builder.states.trace import Trace, around

_FILTERS = ("http_query", "dns_check")


def watch_templates(trace: Trace) -> None:
    """Note what templates call."""
    import salt.state
    import salt.template
    import salt.utils.dateutils
    import salt.utils.http
    import salt.utils.network
    import salt.utils.templates
    from salt.utils.decorators.jinja import JinjaFilter

    def compiling(original: Callable[..., Any]) -> Callable[..., Any]:
        def compile_template(template: Any, renderers: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
            trace.doing.append(_rendered(str(template)))
            try:
                custom_code.shebang(trace, str(template), str(default))
                return original(template, renderers, default, *args, **kwargs)
            finally:
                trace.doing.pop()

        return compile_template

    for module in (salt.state, salt.template):
        around(module, "compile_template", compiling)
    for name in custom_code.LANGUAGES[1:]:
        salt.utils.templates.TEMPLATE_REGISTRY[name] = _with_python(trace, salt.utils.templates.TEMPLATE_REGISTRY[name])
    around(salt.utils.templates.AliasedLoader, "__getitem__", functools.partial(_looking_up, trace))
    around(salt.utils.templates.AliasedLoader, "__getattr__", functools.partial(_looking_at, trace))
    filters = JinjaFilter.salt_jinja_filters
    for name in _FILTERS:
        if name in filters:
            filters[name] = _noting(trace, filters[name], lambda value: True, f"asks the internet (filter {name})")
    for name in ("strftime", "date_format"):
        if name in filters:
            filters[name] = _noting(trace, filters[name], _is_now, f"reads the clock (filter {name})")


def _with_python(trace: Trace, render: Callable[..., Any]) -> Callable[..., Any]:
    """Look on at templates, of files that states install, that may have Python in them."""

    @functools.wraps(render)
    def judged(template: Any, *args: Any, **kwargs: Any) -> Any:
        custom_code.python(trace, str(template))
        return render(template, *args, **kwargs)

    return judged


def _rendered(place: str) -> str:
    """Return what is rendered, as the master serves it."""
    return place.rpartition("/files/")[2].partition("/")[2] or place


def _is_now(value: Any) -> bool:
    """Tell whether a date is one that depends on today: none, in words, or only a part of one."""
    return not value or (isinstance(value, str) and not re.match(r"\d{4}-?\d\d-?\d\d|\d{5,}", value))


def _noting(trace: Trace, filter_: Callable[..., Any], when: Callable[[Any], bool], reason: str) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def noted(value: Any = None, *args: Any, **kwargs: Any) -> Any:
        if when(value):
            trace.unproven(reason)
        return filter_(value, *args, **kwargs)

    return noted


def _looking_up(trace: Trace, original: Callable[..., Any]) -> Callable[..., Any]:
    """Look on at ``salt['cmd.run']``."""

    def getitem(self: Any, name: str) -> Any:
        found = original(self, name)
        custom_code.call(trace, object.__getattribute__(self, "wrapped"), name)
        return found

    return getitem


def _looking_at(trace: Trace, original: Callable[..., Any]) -> Callable[..., Any]:
    """Look on at ``salt.cmd.run``."""

    def getattribute(self: Any, name: str) -> Any:
        found = original(self, name)
        if name == "get":
            return functools.partial(_get, trace, object.__getattribute__(self, "wrapped"), found)
        plain = name.startswith("_") or callable(getattr(type(object.__getattribute__(self, "wrapped")), name, None))
        return found if plain else _Module(trace, object.__getattribute__(self, "wrapped"), name, found)

    return getattribute


def _get(trace: Trace, loader: Any, original: Callable[..., Any], name: str, *default: Any) -> Any:
    """Look on at ``salt.get('cmd.run')``."""
    custom_code.call(trace, loader, name)
    return original(name, *default)


class _Module:
    """A module as templates see it."""

    def __init__(self, trace: Trace, loader: Any, name: str, module: Any) -> None:
        self._parts = (trace, loader, name, module)

    def __getattr__(self, function: str) -> Any:
        trace, loader, name, module = self._parts
        found = getattr(module, function)
        custom_code.call(trace, loader, f"{name}.{function}")
        return found
