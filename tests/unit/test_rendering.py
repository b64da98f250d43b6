"""Errors of Salt's renderers, as Salt gives them, and what an operator reads."""

from __future__ import annotations

import pytest

from saltext.immutable import rendering

JINJA = """Rendering SLS 'base:web' failed: Jinja error: division by zero
/var/cache/salt/minion/files/base/lib/map.jinja(2):
---
{% macro y() %}
{{ 1/0 }}    <======================
{% endmacro %}
---
Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/utils/templates.py", line 582, in render_jinja_tmpl
    output = template.render(**decoded_context)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/var/cache/salt/minion/files/base/lib/map.jinja", line 2, in template
    {{ 1/0 }}
ZeroDivisionError: division by zero

"""
PYTHON = """Rendering SLS 'base:py' failed: Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/utils/templates.py", line 803, in py
    data = mod.run()
           ^^^^^^^^^
  File "/var/cache/salt/minion/files/base/py.sls", line 3, in run
    return {}["x"]
           ~~^^^^^
KeyError: 'x'
"""
PILLAR = """Rendering SLS 'p' failed, render error:
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/salt/utils/templates.py", line 803, in py
    data = mod.run()
  File "/srv/pillar/p.sls", line 3, in run
    return 1/0
ZeroDivisionError: division by zero
"""
MODULE = """Rendering SLS 'base:web' failed: Jinja error: 'gone'
Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/jinja2/environment.py", line 942, in handle_exception
    raise rewrite_traceback_stack(source=source)
  File "/var/cache/salt/minion/extmods/modules/shop.py", line 9, in stock
    return {}["gone"]
KeyError: 'gone'

; line 2

---
a: {{ salt['shop.stock']() }}    <======================
---"""
STATE = """An exception occurred in this state: Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/modules/cmdmod.py", line 857, in _run
    proc = salt.utils.timed_subprocess.TimedProc(cmd, **new_kwargs)
FileNotFoundError: [Errno 2] No such file or directory: 'migrate'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/var/cache/salt/minion/extmods/states/shop.py", line 7, in migrated
    __salt__["cmd.run"](name)
  File "/opt/salt/lib/python3.11/site-packages/salt/modules/cmdmod.py", line 878, in _run
    raise CommandExecutionError(msg)
salt.exceptions.CommandExecutionError: Unable to run command 'migrate'
"""
CHAINED = """[ERROR   ] Rendering exception occurred
Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/jinja2/environment.py", line 1295, in render
    self.environment.handle_exception()
jinja2.exceptions.UndefinedError: 'x' is undefined

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/utils/templates.py", line 258, in render_tmpl
    output = render_str(tmplstr, context, tmplpath)
salt.exceptions.SaltRenderError: Jinja variable 'x' is undefined
[CRITICAL] Rendering SLS 'base:web' failed: Jinja variable 'x' is undefined
"""
IN_STATE = """An exception occurred in this state: Traceback (most recent call last):
  File "/usr/lib/python3.11/subprocess.py", line 1901, in _execute_child
    raise child_exception_type(errno_num, err_msg, err_filename)
FileNotFoundError: [Errno 2] No such file or directory: 'ifdown'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/modules/cmdmod.py", line 878, in _run
    raise CommandExecutionError(msg)
salt.exceptions.CommandExecutionError: Unable to run 'ifdown'
a second line
"""


@pytest.mark.parametrize(
    ("error", "reads"),
    [
        pytest.param(
            "Rendering SLS 'base:web.main' failed: no expected node\n  in \"<unicode string>\", line 5, column 1",
            "Rendering SLS 'base:web.main' failed: no expected node\n  in SLS web.main, line 5, column 1",
            id="YAML",
        ),
        pytest.param(
            JINJA,
            "Rendering SLS 'base:web' failed: Jinja error: division by zero\nsalt://lib/map.jinja(2):\n---\n"
            "{% macro y() %}\n{{ 1/0 }}    <======================\n{% endmacro %}\n---",
            id="Jinja, whose lines are there already",
        ),
        pytest.param(
            PYTHON, "Rendering SLS 'base:py' failed: KeyError: 'x' (salt://py.sls, line 3)", id="a state file in Python"
        ),
        pytest.param(
            PILLAR,
            "Rendering SLS 'p' failed, render error: ZeroDivisionError: division by zero (/srv/pillar/p.sls, line 3)",
            id="a pillar in Python",
        ),
        pytest.param(
            MODULE,
            "Rendering SLS 'base:web' failed: Jinja error: 'gone'\nKeyError: 'gone' (salt://_modules/shop.py, line 9)\n"
            "; line 2\n\n---\na: {{ salt['shop.stock']() }}    <======================\n---",
            id="a custom module that a template calls",
        ),
        pytest.param(
            STATE,
            "An exception occurred in this state: salt.exceptions.CommandExecutionError: Unable to run command "
            "'migrate' (salt://_states/shop.py, line 7)",
            id="an exception in a state",
        ),
        pytest.param(
            CHAINED,
            "[ERROR   ] Rendering exception occurred\n"
            "[CRITICAL] Rendering SLS 'base:web' failed: Jinja variable 'x' is undefined",
            id="a log",
        ),
        pytest.param(
            "Rendering SLS 'base:web' failed: Jinja syntax error: Encountered error loading yaml: no expected node\n"
            '  in "<unicode string>", line 2, column 3; line 1\n{% import_yaml "web/bad.yaml" as d %}    <====',
            "Rendering SLS 'base:web' failed: Jinja syntax error: Encountered error loading yaml: no expected node\n"
            '  in the file that is imported, line 2, column 3; line 1\n{% import_yaml "web/bad.yaml" as d %}    <====',
            id="YAML that is imported",
        ),
        pytest.param(
            IN_STATE,
            "An exception occurred in this state: salt.exceptions.CommandExecutionError: Unable to run 'ifdown'\n"
            "a second line",
            id="an exception in a state",
        ),
        pytest.param("Specified SLS nothere is not available", "Specified SLS nothere is not available", id="plain"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_what_an_operator_reads(error, reads):
    assert rendering.readable(error) == reads


def test_the_same_error_is_told_once():
    assert rendering.messages(["a", "b", "a"]) == "a\nb"
