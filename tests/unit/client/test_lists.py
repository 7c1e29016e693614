"""Lists that come in pages."""

from __future__ import annotations

from typing import Any

import pytest

from drey.audit.v1 import audit_pb2, audit_service_pb2
from drey_client import Client


class PagedTrail(Client):
    """Answers with acts 1 to 2,500, as a server does that gives at most 1,000 at a time."""

    asked: list[int]

    async def call(self, method: Any, request: Any, *, timeout_s: float | None = None) -> Any:
        self.asked.append(request.page_size)
        begin = int(request.page_token or 1)
        end = min(begin + request.page_size, 2501)
        return audit_service_pb2.ListEventsResponse(
            events=[audit_pb2.AuditEvent(sequence=number) for number in range(begin, end)],
            next_page_token="" if end > 2500 else str(end),
        )


@pytest.mark.parametrize(
    ("limit", "asked"), [(0, [1000, 1000, 1000]), (1500, [1000, 500]), (7, [7]), (1000, [1000])]
)
async def test_a_list_is_read_to_its_limit(limit: int, asked: list[int]) -> None:
    trail = PagedTrail("127.0.0.1:1")
    trail.asked = []
    async with trail as client:
        acts = await client.acts(limit)
    assert [act.sequence for act in acts] == list(range(1, (limit or 2500) + 1))
    assert trail.asked == asked
