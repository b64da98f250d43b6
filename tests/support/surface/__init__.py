"""The public surface as data: what operators, reactors, other programs and third parties rely on.

``tests/surface/*.yaml`` holds it, one file a part. Each module here reads one part from the code::

    functions.py  functions.yaml  what Salt's loader offers: functions, their arguments and defaults
    pillar.py     pillar.yaml     keys of the pillar and of the master config: values they take, defaults
    store.py      store.yaml      tables and columns
    api.py        api.yaml        entry points, and what a provider or a traffic adapter has to offer

``tests/unit/test_surface.py`` compares. A change that is meant is written down by::

    .venv/bin/python -m tests.support.surface --write

Imports of the library are in ``library.py`` alone.
"""

from __future__ import annotations

from . import api, events, functions, pillar, seen, store

PARTS = {
    "api": api.read,
    "events": events.read,
    "functions": functions.read,
    "json": seen.answers,
    "pillar": pillar.read,
    "store": store.read,
}
"""What is read from the code, by the name of its file."""
