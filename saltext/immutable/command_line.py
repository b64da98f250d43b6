"""Types of what an operator writes for the arguments of a command, each with its reader.

`arguments` asks the readers before a function runs: a wrong value must open and make nothing.
"""

from __future__ import annotations

from typing import Annotated

from saltext.immutable.spec import reading

Name = Annotated[str, reading.name]
"""Of a recipe, a fleet or a channel; or ``all``."""
Names = Annotated[str | list, reading.names]  # type: ignore[type-arg]
"""Of recipes: ``base,web``, or a list."""
MinionId = Annotated[str, reading.minion_id]
Reference = Annotated[str, reading.text]
"""To an image: ``web:stable``, ``web@3f2a9c1d04be``, a digest; only the store knows which there are."""
FilePath = Annotated[str, reading.absolute_path]
Count = Annotated[int, reading.count]
Number = Annotated[int, reading.running_number]
"""Of a rollout or a generation."""
Duration = Annotated[int | float | str, reading.duration]
Refresh = bool | Annotated[str, reading.either("never", "updates", "always")]
Cache = Annotated[str, reading.either("use", "only")]
TaintKind = Annotated[str, reading.either("hand", "drift")]
