"""The public surface as data: what operators, reactors, other programs and third parties rely on.

``tests/surface/*.yaml`` holds it. What stands in the code is read from there and compared in
``tests/unit/test_surface.py``, one module a file::

    functions.py  functions.yaml  what Salt's loader offers: functions, their arguments and defaults
    pillar.py     pillar.yaml     keys of the pillar and of the master config: values they take, defaults
    store.py      store.yaml      tables and columns
    api.py        api.yaml        entry points, and what a provider or a traffic adapter has to offer
    grains.py     grains.yaml     what the grain says of a machine
    events.py     events.yaml     tags of events, kinds of entries in journals
    seen.py       json.yaml       functions that answer

What functions answer and what is fired is seen in runs of tests, and ``seen.py`` holds it to the shapes in these files
(``shapes.py``): functional tests show it all that passes through their process, integration tests what ``bus.py`` hears
of the master.

A change that is meant is written down by the first command if the code says it, by a run of a test if it was seen::

    .venv/bin/python -m tests.support.surface --write
    IMMUTABLE_SURFACE=write .venv/bin/python -m pytest tests/functional/test_fleet_runner.py

Imports of the library are in ``library.py`` alone.
"""

from __future__ import annotations

from . import api, events, functions, grains, pillar, seen, store

PARTS = {
    "api": api.read,
    "events": events.read,
    "functions": functions.read,
    "grains": grains.read,
    "json": seen.answers,
    "pillar": pillar.read,
    "store": store.read,
}
"""What is read from the code, by the name of its file."""
