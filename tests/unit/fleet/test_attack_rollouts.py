"""What went wrong once in the books of rollouts, and must not again."""

from __future__ import annotations

import re

from sqlalchemy.dialects import postgresql

from saltext.immutable.fleet import queries


def test_what_is_nothing_in_a_part_of_the_news_has_a_type_all_the_same():
    said = str(queries.NEWS.compile(dialect=postgresql.dialect()))
    assert "NULL AS" in said, "some parts say nothing"
    assert not re.findall(r"(?<!CAST\()NULL AS (?!VARCHAR|TEXT|INTEGER|FLOAT)", said), "UNION types cannot be matched"
