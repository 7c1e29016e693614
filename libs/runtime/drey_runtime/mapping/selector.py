"""`drey.common.v1.Selector` from and to the one of the core."""

from __future__ import annotations

import sys

from drey.common.v1 import selector_pb2
from drey_core.errors import InvalidArgument
from drey_core.selector import MAX_NESTING, Selector, TagFilter


def selector_from_proto(message: selector_pb2.Selector, path: str = "selector") -> Selector:
    """The selector as it came, not validated beyond its nesting.

    Raises `InvalidArgument` when it nests deeper than `MAX_NESTING`: the recursion ends there.
    """
    return _from_proto(message, path, 1)


def selector_from_bytes(encoded: bytes) -> Selector:
    """The selector of an encoded message that was looked at when it came in."""
    return selector_from_proto(selector_pb2.Selector.FromString(encoded))


def _from_proto(message: selector_pb2.Selector, path: str, depth: int) -> Selector:
    if depth > MAX_NESTING:
        raise InvalidArgument(
            f"{path}: selectors nest deeper than {MAX_NESTING}",
            field=path,
            metadata={"field": path},
        )
    inner = None
    if message.HasField("excluding"):
        inner = _from_proto(message.excluding, f"{path}.excluding", depth + 1)
    return Selector(
        all=message.all,
        # a thousand watches that name the same PVs keep their names once
        names=tuple(map(sys.intern, message.names)),
        ids=tuple(message.ids),
        numbers=tuple(message.numbers),
        globs=tuple(message.globs),
        devices=tuple(message.devices),
        tags=tuple(TagFilter(entry.group, tuple(entry.tags)) for entry in message.tags),
        scope=message.scope,
        excluding=inner,
    )


def selector_to_proto(selector: Selector) -> selector_pb2.Selector:
    """The message that says the same."""
    message = selector_pb2.Selector(
        all=selector.all,
        names=selector.names,
        ids=selector.ids,
        numbers=selector.numbers,
        globs=selector.globs,
        devices=selector.devices,
        tags=[selector_pb2.TagFilter(group=t.group, tags=t.tags) for t in selector.tags],
        scope=selector.scope,
    )
    if selector.excluding is not None:
        message.excluding.CopyFrom(selector_to_proto(selector.excluding))
    return message
