"""Who did something, as a message: one mapping for every service that shows it."""

from __future__ import annotations

from drey.common.v1.actor_pb2 import Actor


def actor(principal: str, roles_text: str) -> Actor:
    """Of a name and the roles as they are stored: `operator,editor`."""
    return Actor(principal=principal, roles=[r for r in roles_text.split(",") if r])
