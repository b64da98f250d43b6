"""Errors of Salt's own renderers, with what the bake adds to them."""

from __future__ import annotations

import io

import pytest
import salt.template
from salt.exceptions import SaltRenderError
from salt.renderers import yaml

from saltext.immutable import rendering
from saltext.immutable.builder.states.watch import templates as watch_templates


def compiled(text):
    """Compile a state file as Salt does in a bake, with its renderer of YAML, and one that runs Python."""
    renderers = {"yaml": yaml.render, "python": lambda data, *args, **kwargs: exec(data.read())}
    more = {"input_data": text, "saltenv": "base", "sls": "web"}
    compile_template = watch_templates._with_lines(salt.template.compile_template)
    return compile_template(":string:", renderers, "yaml", [], [*renderers], **more)


@pytest.fixture(autouse=True)
def config(monkeypatch):
    monkeypatch.setattr(yaml, "__opts__", {}, raising=False)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        pytest.param("a:\n  file.managed:\n    - name: x\n   - mode: 1\n", "   - mode: 1    <===", id="parser"),
        pytest.param("a:\n  file.touch\nb: 1\na:\n  file.absent\n", "a:    <===", id="constructor"),
        pytest.param("a:\n  b:\n\t- c\n", "\t- c    <===", id="scanner"),
        pytest.param("#!python\na = 1\nb = nothing\n", "b = nothing    <===", id="Python without a file"),
    ],
)
def test_an_error_of_yaml_shows_the_lines_around(text, marked):
    with pytest.raises(SaltRenderError) as found:
        compiled(text)
    assert marked in str(found.value), found.value
    assert str(found.value).count("<===") == 1


@pytest.mark.parametrize("error", [SaltRenderError("Jinja error", 3, "a\nb\nc"), SaltRenderError("no"), KeyError("x")])
def test_another_error_stays_as_it_is(error):
    def render(*args):
        raise error

    renderers = rendering.Renderers({"own": render})
    with pytest.raises(type(error)) as found:
        renderers["own"]("a: 1")
    assert found.value is error
    assert "own" in renderers and "yaml" not in renderers and renderers.keys() == {"own"}


def test_a_template_is_named_in_its_error_but_not_text_without_a_file():
    def render(*args, **kwargs):
        raise SaltRenderError("Jinja variable 'x' is undefined")

    named = watch_templates._with_name(render)
    with pytest.raises(SaltRenderError, match=r"^/files/base/web/t\.j: Jinja variable"):
        named("/files/base/web/t.j")
    for template, how in (("{{ x }}", {"from_str": True}), (io.StringIO("{{ x }}"), {})):
        with pytest.raises(SaltRenderError, match="^Jinja variable"):
            named(template, **how)
    assert watch_templates._with_name(lambda template: template)("/a") == "/a"
