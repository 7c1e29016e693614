"""The selector of a snapshot as it is stored: equal selectors are equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from drey_core.selector import Selector, TagFilter

SHOWN = 1000
"""Names, ids and numbers that are shown of a selector which has more of them."""
_EXCLUDING = "except_"
"""What `Selector.excluding` is called in stored bytes, which never change."""


def encode_selector(selector: Selector) -> bytes:
    """JSON by the names of the fields (but `_EXCLUDING`), those that say nothing left out."""
    return json.dumps(_selector_fields(selector), separators=(",", ":"), sort_keys=True).encode()


def decode_selector(raw: bytes) -> Selector:
    """Inverse of `encode_selector`."""
    return _parse_selector(json.loads(raw))


def shorten_selector(selector: Selector) -> Selector:
    """The selector with the first of its names, ids and numbers; itself where it has few."""
    inner = selector.excluding
    short = replace(
        selector,
        names=selector.names[:SHOWN],
        ids=selector.ids[:SHOWN],
        numbers=selector.numbers[:SHOWN],
        excluding=None if inner is None else shorten_selector(inner),
    )
    return selector if short == selector else short


def _selector_fields(selector: Selector) -> dict[str, Any]:
    fields_by_name: dict[str, Any] = {}
    for field in fields(selector):
        value = getattr(selector, field.name)
        if isinstance(value, Selector):
            fields_by_name[_EXCLUDING] = _selector_fields(value)
        elif field.name == "tags" and value:
            fields_by_name["tags"] = [[tag.group, list(tag.tags)] for tag in value]
        elif value:
            fields_by_name[field.name] = list(value) if isinstance(value, tuple) else value
    return fields_by_name


def _parse_selector(fields: Mapping[str, Any]) -> Selector:
    given: dict[str, Any] = {}
    for name, value in fields.items():
        if name == _EXCLUDING:
            given["excluding"] = _parse_selector(value)
        elif name == "tags":
            given[name] = tuple(TagFilter(group, tuple(tags)) for group, tags in value)
        else:
            given[name] = tuple(value) if isinstance(value, list) else value
    return Selector(**given)
