"""Have errors of rendering say where they are: Salt leaves out the lines of YAML, and the name of a state's template.

Runs in the machine that bakes, around Salt's own functions; what they raise is of the same class.
"""

from __future__ import annotations

import functools
import io
import traceback
import types
from collections.abc import Callable
from typing import Any

from saltext.immutable.builder.states.trace import wrap_method


def explain() -> None:
    """Wrap what renders state files, and the templates of files that states install."""
    import salt.state
    import salt.utils.templates

    wrap_method(salt.state, "compile_template", _with_lines)
    registry = salt.utils.templates.TEMPLATE_REGISTRY
    for name, render in registry.items():
        registry[name] = _with_name(render)


def _with_lines(original: Callable[..., Any]) -> Callable[..., Any]:
    """Show the lines around an error of YAML, or of Python that a renderer runs, as the renderers before made them."""
    from salt.exceptions import SaltRenderError

    def compile_template(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except SaltRenderError as err:
            mark = getattr(err.__context__, "problem_mark", None)
            if err.buffer or mark is None:
                raise
            raise SaltRenderError(str(err), mark.line + 1, _rendered(err)) from err
        except Exception as err:
            lines = [line for frame, line in traceback.walk_tb(err.__traceback__) if _is_of_text(frame)]
            if not lines:
                raise
            raise SaltRenderError(f"{type(err).__name__}: {err}", lines[-1], _rendered(err)) from err

    return compile_template


def _is_of_text(frame: types.FrameType) -> bool:
    """Return whether a frame is of code that has no file: pyobjects runs a state file as text."""
    return frame.f_code.co_filename == "<string>"


def _rendered(error: BaseException) -> str:
    """Return the text that the last renderer got, '' where Salt's own code is not as expected."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        text = frame.f_locals.get("input_data")
        if frame.f_code.co_name == "compile_template" and isinstance(text, io.StringIO):
            return text.getvalue()
    return ""


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
