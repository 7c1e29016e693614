"""PVs as one line of text chooses them, for settings."""

from __future__ import annotations

from drey_core.errors import InvalidArgument
from drey_core.selector import Selector, TagFilter


def parse_selectors(text: str) -> tuple[Selector, ...]:
    """Selectors that together choose what the text of a setting says; empty: nothing.

    A list by comma of patterns over names, `tag:GROUP`, `tag:GROUP=TAG`, `device:NAME` and
    `scope:NAME`; `*` is all. Raises `InvalidArgument`.
    """
    globs: list[str] = []
    devices: list[str] = []
    selectors: list[Selector] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        kind, _, name = entry.partition(":")
        if kind not in ("tag", "device", "scope"):
            globs.append(entry)
        elif not name:
            raise InvalidArgument(f"{entry!r} names nothing: write {kind}:NAME")
        elif kind == "device":
            devices.append(name)
        elif kind == "scope":
            selectors.append(Selector(scope=name))
        else:
            group, _, tag = name.partition("=")
            selectors.append(Selector(tags=(TagFilter(group, (tag,) if tag else ()),)))
    if "*" in globs:
        return (Selector(all=True),)
    if globs:
        selectors.append(Selector(globs=tuple(globs)))
    if devices:
        selectors.append(Selector(devices=tuple(devices)))
    for selector in selectors:
        selector.validate_selector()
    return tuple(selectors)
