"""Golden stories: each text file in stories/ is lived through, and its journal must be the one that is written there.

STORIES=write writes the journals again: read them as a diff.
"""

from __future__ import annotations

import os

import pytest

from .storytelling import Story, stories

STORIES = stories()


@pytest.mark.parametrize("story", [pytest.param(story, id=story.path.stem) for story in STORIES])
def test_it_happens_as_it_is_told(story: Story) -> None:
    told = "\n".join(story.tell().lines) + "\n"
    if os.environ.get("STORIES") == "write":
        story.path.write_text(f"{story.head}---\n{told}")
    assert told == (story.journal if os.environ.get("STORIES") != "write" else told)
