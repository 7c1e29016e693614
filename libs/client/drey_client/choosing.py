"""From what a person writes to a selector."""

from __future__ import annotations

from collections.abc import Iterable

from drey.common.v1 import selector_pb2

Chosen = str | Iterable[str] | selector_pb2.Selector
"""What a call takes: text, several, or a whole selector."""


def choose(chosen: Chosen) -> selector_pb2.Selector:
    """The selector that is meant. Raises ValueError, also where nothing is chosen.

    - `"*"` or `"all"`: every PV
    - `"QUAD:LI21:201:BDES"`: a PV, or the address of one of its channels
    - `"QUAD:LI21:*"`: a pattern (`*`, `?`, `[abc]`)
    - `"device:QUAD"`, `"tag:Area=LI21"`, `"tag:Area=LI21,LI22"`, `"tag:Area"`: what they carry
    - `"not:BPMS:*"`: taken out again

    A list joins names and patterns; devices and tags narrow them down, as in `Selector`.
    """
    if isinstance(chosen, selector_pb2.Selector):
        return chosen
    selector = selector_pb2.Selector()
    for text in [chosen] if isinstance(chosen, str) else chosen:
        _add_term(selector, text)
    if not selector.ByteSize():
        raise ValueError("nothing is chosen: name PVs, or write '*' for all")
    return selector


def _add_term(selector: selector_pb2.Selector, text: str) -> None:
    word, colon, rest = text.partition(":")
    if text in ("*", "all"):
        selector.all = True
    elif colon and word in ("tag", "device", "not") and not rest:
        raise ValueError(f"{text!r} says nothing after the colon")
    elif colon and word == "device":
        selector.devices.append(rest)
    elif colon and word == "tag":
        group, _, tags = rest.partition("=")
        selector.tags.add(group=group, tags=[tag for tag in tags.split(",") if tag])
    elif colon and word == "not":
        _add_term(selector.excluding, rest)
    elif any(mark in text for mark in "*?["):
        selector.globs.append(text)
    elif text:
        selector.names.append(text)
    else:
        raise ValueError("an empty text chooses nothing")
