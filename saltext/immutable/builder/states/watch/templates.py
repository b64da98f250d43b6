"""Record what templates use while Salt renders them: functions, the clock, the network, and stores of secrets.

Errors of rendering are made to say where they are: Salt leaves out the lines of YAML, and the name of the template of a
file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from saltext.immutable import rendering
from saltext.immutable.builder.states import custom_code
from saltext.immutable.builder.states.trace import Trace, wrap_method

_FILTERS = ("http_query", "dns_check")


def watch_templates(trace: Trace) -> None:
    """Record the functions that templates call, and filters that read the clock or the network."""
    import salt.state
    import salt.template
    import salt.utils.dateutils
    import salt.utils.http
    import salt.utils.network
    import salt.utils.templates
    from salt.utils.decorators.jinja import JinjaFilter

    def compiling(original: Callable[..., Any]) -> Callable[..., Any]:
        def compile_template(template: Any, renderers: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
            trace.in_progress.append(_path_on_master(str(template)))
            try:
                custom_code.check_rendered(trace, str(template), str(default))
                return original(template, renderers, default, *args, **kwargs)
            finally:
                trace.in_progress.pop()

        return compile_template

    for module in (salt.state, salt.template):
        wrap_method(module, "compile_template", compiling)
    for name in custom_code.LANGUAGES[1:]:
        render = salt.utils.templates.TEMPLATE_REGISTRY[name]
        salt.utils.templates.TEMPLATE_REGISTRY[name] = _checking_python(trace, render)
    wrap_method(salt.utils.templates.AliasedLoader, "__getitem__", functools.partial(_wrap_getitem, trace))
    wrap_method(salt.utils.templates.AliasedLoader, "__getattr__", functools.partial(_wrap_getattr, trace))
    filters = JinjaFilter.salt_jinja_filters
    for name in _FILTERS:
        if name in filters:
            filters[name] = _recording(trace, filters[name], lambda value: True, f"asks the internet (filter {name})")
    for name in ("strftime", "date_format"):
        if name in filters:
            filters[name] = _recording(trace, filters[name], _is_now, f"reads the clock (filter {name})")


def watch_stores(trace: Trace) -> None:
    """Record each value that a store of secrets (sdb) gives, to whichever code of Salt asks."""
    import salt.utils.sdb

    def getting(original: Callable[..., Any]) -> Callable[..., Any]:
        def sdb_get(uri: Any, *args: Any, **kwargs: Any) -> Any:
            found = original(uri, *args, **kwargs)
            if isinstance(uri, str) and uri.startswith("sdb://"):
                trace.record_secret(str(uri), found)
            return found

        return sdb_get

    wrap_method(salt.utils.sdb, "sdb_get", getting)


def _checking_python(trace: Trace, render: Callable[..., Any]) -> Callable[..., Any]:
    """Return a renderer of templates (of files that states install) that checks the Python in them first."""

    @functools.wraps(render)
    def check_and_render(template: Any, *args: Any, **kwargs: Any) -> Any:
        custom_code.check_python(trace, str(template))
        return render(template, *args, **kwargs)

    return check_and_render


def _path_on_master(path: str) -> str:
    """Return the path in the state tree of a file in the minion's cache."""
    return path.rpartition("/files/")[2].partition("/")[2] or path


def _is_now(value: Any) -> bool:
    """Return whether a date depends on today: an empty one, words, or only a part of a date."""
    return not value or (isinstance(value, str) and not re.match(r"\d{4}-?\d\d-?\d\d|\d{5,}", value))


def _recording(
    trace: Trace, filter_: Callable[..., Any], when: Callable[[Any], bool], reason: str
) -> Callable[..., Any]:
    """Return a Jinja filter that records ``reason`` for values of which ``when`` is true."""

    @functools.wraps(filter_)
    def record_and_filter(value: Any = None, *args: Any, **kwargs: Any) -> Any:
        if when(value):
            trace.unproven(reason)
        return filter_(value, *args, **kwargs)

    return record_and_filter


def _wrap_getitem(trace: Trace, original: Callable[..., Any]) -> Callable[..., Any]:
    """Check the function in ``salt['cmd.run']``."""

    def getitem(self: Any, name: str) -> Any:
        found = original(self, name)
        custom_code.check_call(trace, object.__getattribute__(self, "wrapped"), name)
        return found

    return getitem


def _wrap_getattr(trace: Trace, original: Callable[..., Any]) -> Callable[..., Any]:
    """Check the function in ``salt.cmd.run``."""

    def getattribute(self: Any, name: str) -> Any:
        found = original(self, name)
        if name == "get":
            return functools.partial(_get, trace, object.__getattribute__(self, "wrapped"), found)
        plain = name.startswith("_") or callable(getattr(type(object.__getattribute__(self, "wrapped")), name, None))
        return found if plain else _Module(trace, object.__getattribute__(self, "wrapped"), name, found)

    return getattribute


def _get(trace: Trace, loader: Any, original: Callable[..., Any], name: str, *default: Any) -> Any:
    """Check the function in ``salt.get('cmd.run')``."""
    custom_code.check_call(trace, loader, name)
    return original(name, *default)


class _Module:
    """An execution module as templates see it; checks each function that is read from it."""

    def __init__(self, trace: Trace, loader: Any, name: str, module: Any) -> None:
        self._parts = (trace, loader, name, module)

    def __getattr__(self, function: str) -> Any:
        trace, loader, name, module = self._parts
        found = getattr(module, function)
        custom_code.check_call(trace, loader, f"{name}.{function}")
        return found


def explain_errors() -> None:
    """Wrap what renders state files, and the templates of files that states install."""
    import salt.state
    import salt.utils.templates

    wrap_method(salt.state, "compile_template", _with_lines)
    registry = salt.utils.templates.TEMPLATE_REGISTRY
    for name, render in registry.items():
        registry[name] = _with_name(render)


def _with_lines(original: Callable[..., Any]) -> Callable[..., Any]:
    def compile_template(template: Any, renderers: Any, *args: Any, **kwargs: Any) -> Any:
        return original(template, rendering.Renderers(renderers), *args, **kwargs)

    return compile_template


def _with_name(render: Callable[..., Any]) -> Callable[..., Any]:
    """Name the template in the error of a renderer, unless it renders text that has no file."""
    from salt.exceptions import SaltRenderError

    @functools.wraps(render)
    def render_template(template: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return render(template, *args, **kwargs)
        except SaltRenderError as err:
            if kwargs.get("from_str") or not isinstance(template, str):
                raise
            raise SaltRenderError(f"{template}: {err}") from err

    return render_template
