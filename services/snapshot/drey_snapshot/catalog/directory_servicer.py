"""`drey.internal.directory.v1.DirectoryService`: the catalog in columns, for our own parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from drey.internal.directory.v1 import directory_service_pb2 as rpc
from drey_core.page_storage import load_text
from drey_runtime.mapping.selector import selector_from_proto
from drey_runtime.paging import in_chunks
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.mapping import policy_to_proto, sources_to_proto
from drey_snapshot.catalog.rpc import Context
from drey_snapshot.catalog.view import choose_numbers

_BYTES = 1 << 20
_ROWS = 20_000
"""PVs in one message: their three columns are 480 KB."""
_POLICIES = 2_000
"""Policies in one message: each is at most about 1 KB."""


class DirectoryServicer:
    """Answers from memory, also while Postgres is away."""

    def __init__(self, catalog: LiveCatalog) -> None:
        self._catalog = catalog

    async def GetCatalogPages(
        self, request: rpc.GetCatalogPagesRequest, context: Context
    ) -> AsyncIterator[rpc.GetCatalogPagesResponse]:
        view = await self._catalog.current_view()
        since = request.since_version
        # a caller from another time (a restored database, say) gets everything
        everything = since > view.version
        wanted = sorted(
            number
            for number, version in view.page_versions.items()
            if everything or version > since
        )
        pages: list[bytes] = []
        size = 0
        for number in wanted:
            (raw,) = load_text([view.stored_pages[number]])
            if pages and size + len(raw) > _BYTES:
                yield rpc.GetCatalogPagesResponse(version=view.version, pages=pages)
                pages, size = [], 0
            pages.append(raw)
            size += len(raw)
        yield rpc.GetCatalogPagesResponse(version=view.version, pages=pages)

    async def ResolveChannels(
        self, request: rpc.ResolveChannelsRequest, context: Context
    ) -> AsyncIterator[rpc.ResolveChannelsResponse]:
        view = await self._catalog.current_view()
        selector = selector_from_proto(request.selector)
        rows, not_found = await choose_numbers(view, selector, request.allow_unknown)
        directory = view.directory
        names = in_chunks(not_found, lambda name: len(name.encode(errors="replace")))
        for index in range(0, max(len(rows), 1), _ROWS):
            chunk = rows[index : index + _ROWS]
            yield rpc.ResolveChannelsResponse(
                version=view.version,
                pv_numbers=directory.pv_number[chunk].tolist(),
                setpoint_channels=directory.setpoint_channel[chunk].tolist(),
                readback_channels=directory.readback_channel[chunk].tolist(),
                not_found=next(names, []),
            )
        for more in names:
            yield rpc.ResolveChannelsResponse(version=view.version, not_found=more)

    async def GetRestorePolicies(
        self, request: rpc.GetRestorePoliciesRequest, context: Context
    ) -> AsyncIterator[rpc.GetRestorePoliciesResponse]:
        view = await self._catalog.current_view()
        # the first who asks of a version computes it, beside the loop
        policies = await asyncio.to_thread(lambda: view.effective_policies)
        for first in range(0, len(policies.listed), _POLICIES):
            yield rpc.GetRestorePoliciesResponse(
                policies=[
                    rpc.EffectivePolicy(
                        policy=policy_to_proto(each.policy),
                        sources=sources_to_proto(each),
                        contradictions=each.contradictions,
                    )
                    for each in policies.listed[first : first + _POLICIES]
                ]
            )
        for first in range(0, len(policies.numbers), _ROWS):
            yield rpc.GetRestorePoliciesResponse(
                pv_numbers=policies.numbers[first : first + _ROWS].tolist(),
                policy_indexes=policies.index[first : first + _ROWS].tolist(),
            )
