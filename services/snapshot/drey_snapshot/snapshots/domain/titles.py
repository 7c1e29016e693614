"""Titles of snapshots, with what is filled in when one is taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from drey_core.errors import InvalidArgument

MAX_TITLE_BYTES = 500
_MOST_PVS = 10**9
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def escape_title(title: str) -> str:
    """The template of a title that has nothing to fill in."""
    return title.replace("{", "{{").replace("}", "}}")


def title_values(time_ns: int, scope: str, source: str, pv_count: int) -> dict[str, str]:
    """What the placeholders stand for."""
    time = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return {
        "time": f"{time:%Y-%m-%dT%H:%M:%SZ}",
        "date": f"{time:%Y-%m-%d}",
        "scope": scope,
        "source": source,
        "pv_count": str(pv_count),
    }


def check_title(template: str, scope: str, source: str, field: str) -> None:
    """Raise `InvalidArgument` for a wrong template, and for one whose title would be too long."""
    size = len(fill_title(template, title_values(0, scope, source, _MOST_PVS), field).encode())
    if size > MAX_TITLE_BYTES:
        raise _wrong_title(field, f"makes a title of {size} bytes; {MAX_TITLE_BYTES} are allowed")


def fill_title(template: str, values: Mapping[str, str], field: str = "title_template") -> str:
    """The title. Raises `InvalidArgument` for a placeholder that there is not."""

    def fill_part(part: re.Match[str]) -> str:
        text, name = part[0], part[1]
        if text in ("{{", "}}"):
            return text[0]
        if name is None:
            raise _wrong_title(
                field, f"has a {text} that belongs to no placeholder; write {text * 2} for a brace"
            )
        if name not in values:
            known_fields = ", ".join(f"{{{each}}}" for each in values)
            raise _wrong_title(
                field,
                f"{text} is no placeholder; there are {known_fields}, and {{{{ and }}}} for braces",
            )
        return values[name]

    return _PART.sub(fill_part, template)


def _wrong_title(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {message}", field=field, metadata={"field": field})
