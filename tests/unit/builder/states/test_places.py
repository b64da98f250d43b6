"""Where the tree says what Salt only names in an error, as the bake finds it in the files that the minion fetched."""

from __future__ import annotations

import subprocess

import pytest

from saltext.immutable.builder.states import state_run

TREE = {
    "web/init.sls": "include:\n  - web.gone\n  - .lost\n# see web.gone.old\nnginx:\n  pkg.installed: []\n",
    "web/db.sls": "include: [web.db2, '..lost']\n{% if x %}\nnginx:\n  service.running: []\n{% endif %}\n",
}
GONE = "Specified SLS {} in saltenv base is not available on the salt master or through a configured fileserver"


class FakeMachine:
    """A machine that has fetched the tree."""

    def __init__(self, root):
        self.root = root

    def run(self, command):
        """Run a command on our copy of what the minion fetched."""
        words = [word.replace("/var/cache/salt/minion/files/base", str(self.root)) for word in command]
        return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path):
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return FakeMachine(tmp_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(
            "The conflicting ID is 'nginx' and is found in SLS 'base:web' and SLS 'base:web.db'",
            "\nweb/init.sls:5:\n---\n[...]\n  - .lost\n# see web.gone.old\nnginx:    <======================\n"
            "  pkg.installed: []\n---"
            "\nweb/db.sls:3:\n---\ninclude: [web.db2, '..lost']\n{% if x %}\nnginx:    <======================\n"
            "  service.running: []\n{% endif %}\n---",
            id="two states",
        ),
        pytest.param(
            GONE.format("web.gone"), "\nweb.gone is named in web/init.sls:2:  - web.gone", id="an SLS by its name"
        ),
        pytest.param(
            GONE.format("web.lost"),
            "\nweb.lost is named in web/db.sls:1:include: [web.db2, '..lost']"
            "\nweb.lost is named in web/init.sls:3:  - .lost",
            id="relative names",
        ),
        pytest.param(GONE.format("shop"), "", id="one that the recipe names itself"),
        pytest.param("ID a in SLS nowhere is not a dictionary", "", id="a file that is not there"),
        pytest.param("the master does not answer", "", id="something else"),
    ],
)
def test_the_places_of_an_error_are_shown(machine, error, said):
    assert state_run._places(machine, "base", error) == said
