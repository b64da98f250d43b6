"""Tables and columns of the store."""

from __future__ import annotations

from typing import Any

from .library import TABLES


def read() -> dict[str, dict[str, str]]:
    """Return ``{"images": {"digest": "TEXT, primary key"}}``."""
    return {str(table.name): {str(column.name): _column(column) for column in table.columns} for table in TABLES}


def _column(column: Any) -> str:
    words = [str(column.type)]
    words += [f"refers to {key.target_fullname}" for key in sorted(column.foreign_keys, key=str)]
    words += ["primary key"] if column.primary_key else ["may be null"] if column.nullable else []
    words += ["index"] if column.index else []
    words += [f"default {column.server_default.arg}"] if column.server_default is not None else []
    return ", ".join(words)
