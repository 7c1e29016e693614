"""Today's catalog, kept in memory and brought up to date before each use."""

from __future__ import annotations

import asyncio
import math

import grpc
import numpy as np

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import selector_pb2
from drey.internal.directory.v1 import directory_service_pb2 as pb
from drey.internal.directory.v1 import directory_service_pb2_grpc as rpc
from drey_core.directory import CatalogPage, Directory
from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import I8
from drey_restore.domain.policy import PartSource, PolicyOrigin, PolicyTable, SaidPolicy
from drey_runtime.directory_codec import decode_catalog
from drey_runtime.upstream import CatalogPagesClient, read_stream, translate_errors


class CatalogClient:
    """`DirectoryService` of the snapshot service. Raises `Unavailable` while it is away."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float = 10.0) -> None:
        self._stub = rpc.DirectoryServiceStub(channel)
        self._reader = CatalogPagesClient(channel, _numbered_page, timeout_s)
        self._timeout = timeout_s
        self._pages: dict[int, CatalogPage] = {}
        self._directory = Directory.from_pages(0, [])
        self._lock = asyncio.Lock()

    @property
    def known_directory(self) -> Directory:
        """The catalog as it was last; out of date by what changed since, empty at first."""
        return self._directory

    async def current_directory(self) -> Directory:
        """The catalog as of now; pages that did not change are not read again."""
        async with self._lock:
            update = await self._reader.fetch_changes(self._directory.version)
            pages = dict(update.pages) if update.whole else {**self._pages, **update.pages}
            if update.pages or update.version < self._directory.version:
                self._directory = Directory.from_pages(update.version, list(pages.values()))
                self._pages = pages
            return self._directory

    async def resolve_selector(
        self, selector: selector_pb2.Selector, *, unknown: bool = True
    ) -> I8:
        """Numbers of the PVs that a selector chooses today; unknown names choose nothing.

        Without `unknown` they are an error: NotFound.
        """
        request = pb.ResolveChannelsRequest(selector=selector, allow_unknown=unknown)
        async with (
            translate_errors("snapshot"),
            read_stream(self._stub.ResolveChannels(request, timeout=self._timeout)) as messages,
        ):
            parts = [np.array(part.pv_numbers, np.int64) async for part in messages]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    async def policies(self) -> PolicyTable:
        """What PVs, their tags and their devices say of how they are restored, as of now."""
        numbers: list[I8] = []
        indexes: list[I8] = []
        listed: list[SaidPolicy] = []
        request = pb.GetRestorePoliciesRequest()
        async with (
            translate_errors("snapshot"),
            read_stream(self._stub.GetRestorePolicies(request, timeout=self._timeout)) as parts,
        ):
            async for part in parts:
                numbers.append(np.array(part.pv_numbers, np.int64))
                indexes.append(np.array(part.policy_indexes, np.int64))
                listed.extend(map(_said_policy, part.policies))
        if not listed:
            return PolicyTable(np.zeros(0, np.int64), np.zeros(0, np.int64), [])
        return PolicyTable(np.concatenate(numbers), np.concatenate(indexes), listed)


def _numbered_page(raw: bytes) -> tuple[int, CatalogPage]:
    page = decode_catalog(raw)
    return page.number, page


def _said_policy(message: pb.EffectivePolicy) -> SaidPolicy:
    return SaidPolicy(
        _policy_of(message.policy),
        tuple(map(_part_source, message.sources)),
        tuple(message.contradictions),
    )


def _part_source(source: catalog_pb2.PolicySource) -> PartSource:
    match source.WhichOneof("source"):
        case "pv":
            return PartSource(source.policy_field, PolicyOrigin.PV)
        case "device":
            return PartSource(source.policy_field, PolicyOrigin.DEVICE, source.device)
        case "tag":
            tag = source.tag
            return PartSource(source.policy_field, PolicyOrigin.TAG, tag.tag, tag.group)
        case _:
            return PartSource(source.policy_field, PolicyOrigin.BUILT_IN)


def _policy_of(message: catalog_pb2.RestorePolicy) -> Policy:
    def optional(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]

    def seconds(name: str) -> float | None:
        if not message.HasField(name):  # type: ignore[arg-type]
            return None
        duration = getattr(message, name)
        return float(duration.seconds + duration.nanos / 1e9)

    low, high = -math.inf, math.inf
    if message.HasField("allowed"):
        low, high = message.allowed.low, message.allowed.high
    return Policy(
        completion=CompletionMode(message.completion),
        timeout_s=seconds("timeout"),
        settle_s=seconds("settle"),
        stage=message.stage if message.HasField("stage") else None,
        done_channel=message.done_channel,
        done_value=optional("done_value"),
        ramp_rate=optional("ramp_rate"),
        ramp_step=optional("ramp_step"),
        allowed_low=None if low == -math.inf else low,
        allowed_high=None if high == math.inf else high,
    )
