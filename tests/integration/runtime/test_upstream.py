"""The catalog read from another service: one version, whole pages, or nothing of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any

import grpc
import pytest

from drey.internal.directory.v1.directory_service_pb2 import (
    GetCatalogPagesRequest,
    GetCatalogPagesResponse,
)
from drey.internal.directory.v1.directory_service_pb2_grpc import (
    DirectoryServiceServicer,
    DirectoryServiceStub,
    add_DirectoryServiceServicer_to_server,
)
from drey.storage.v1 import pages_pb2
from drey_core import errors
from drey_core.directory import CatalogPage
from drey_core.errors import Malformed, Reason, Unavailable
from drey_runtime.directory_codec import check_catalog, encode_catalog
from drey_runtime.status import STATUS_METADATA, to_status
from drey_runtime.upstream import CatalogPagesClient, read_stream, translate_errors

PAGES = {number: encode_catalog(CatalogPage.empty_page(number)) for number in (1, 2)}


class Directory(DirectoryServiceServicer):
    """Answers each read as scripted: parts of a version and pages, or an error."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[int] = []

    async def GetCatalogPages(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request.since_version)
        answer = self.answers.pop(0)
        if isinstance(answer, errors.DreyError):
            detail = ((STATUS_METADATA, to_status(answer).SerializeToString()),)
            code = grpc.StatusCode[answer.message]
            await context.abort(code, "as scripted", detail if answer.metadata else ())
        for version, pages in answer:
            yield GetCatalogPagesResponse(version=version, pages=pages)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Directory, CatalogPagesClient[bytes]]]:
    directory, server = Directory(), grpc.aio.server()
    add_DirectoryServiceServicer_to_server(directory, server)
    address = f"unix:{folder}/d"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield directory, CatalogPagesClient(channel, lambda raw: (check_catalog(raw), raw))
    finally:
        await server.stop(None)


async def test_what_changed_is_read(tmp_path: Path) -> None:
    async with served(tmp_path) as (directory, client):
        directory.answers = [[(5, [PAGES[1]]), (5, [PAGES[2]])], [(6, [PAGES[2]])], [(6, [])]]
        whole = await client.fetch_changes(0)
        assert (whole.version, whole.pages, whole.whole) == (5, PAGES, True)
        changed = await client.fetch_changes(5)
        assert (changed.version, list(changed.pages), changed.whole) == (6, [2], False)
        same = await client.fetch_changes(6)
        assert (same.version, same.pages, same.whole) == (6, {}, False)


async def test_parts_of_two_versions_are_read_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (directory, client):
        torn = [(5, [PAGES[1]]), (6, [PAGES[2]])]
        directory.answers = [torn, [(6, [PAGES[2]])]]
        update = await client.fetch_changes(4)
        assert (update.version, list(update.pages), directory.asked) == (6, [2], [4, 4])
        directory.answers = [torn] * 3
        with pytest.raises(Unavailable):
            await client.fetch_changes(4)


async def test_an_older_catalog_is_read_as_a_whole(tmp_path: Path) -> None:
    async with served(tmp_path) as (directory, client):
        directory.answers = [[(3, [])], [(3, [PAGES[1]])]]
        update = await client.fetch_changes(9)
        assert (update.version, list(update.pages), update.whole) == (3, [1], True)
        assert directory.asked == [9, 0]


def _torn() -> list[bytes]:
    out = [b"\xff", PAGES[1][:-3]]
    for field in ("pv_numbers", "roles", "protocols", "relative_tolerances"):
        page = pages_pb2.CatalogPage.FromString(PAGES[1])
        setattr(page, field, getattr(page, field)[1:])
        out.append(page.SerializeToString())
    for field in ("names", "addresses", "devices"):
        page = pages_pb2.CatalogPage.FromString(PAGES[1])
        getattr(page, field).pop()
        out.append(page.SerializeToString())
    page = pages_pb2.CatalogPage.FromString(PAGES[1])
    page.number = 2**31
    return [*out, page.SerializeToString()]


@pytest.mark.parametrize("raw", _torn())
async def test_a_torn_page_is_refused_and_nothing_of_its_read_is_used(
    raw: bytes, tmp_path: Path
) -> None:
    with pytest.raises(Malformed):
        check_catalog(raw)
    async with served(tmp_path) as (directory, client):
        directory.answers = [[(5, [PAGES[1], raw])], [(5, [PAGES[1]])]]
        with pytest.raises(Unavailable):
            await client.fetch_changes(0)
        assert list((await client.fetch_changes(0)).pages) == [1]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("UNAVAILABLE", errors.Unavailable),
        ("DEADLINE_EXCEEDED", errors.Unavailable),
        ("INTERNAL", errors.Unavailable),
        ("CANCELLED", errors.Unavailable),
        ("NOT_FOUND", errors.NotFound),
        ("UNIMPLEMENTED", errors.Unimplemented),
        ("RESOURCE_EXHAUSTED", errors.ResourceExhausted),
        ("PERMISSION_DENIED", errors.Internal),
        ("UNAUTHENTICATED", errors.Unavailable),
    ],
)
async def test_errors_of_calls_are_ours(
    code: str, expected: type[errors.DreyError], tmp_path: Path
) -> None:
    async with served(tmp_path) as (directory, client):
        directory.answers = [errors.DreyError(code)]
        with pytest.raises(errors.DreyError) as bare:
            await client.fetch_changes(0)
        assert type(bare.value) is expected


async def test_the_reason_of_the_other_service_is_kept(tmp_path: Path) -> None:
    async with served(tmp_path) as (directory, client):
        refusal = errors.DreyError("INTERNAL", reason=Reason.NOT_FOUND, metadata={"id": "7"})
        directory.answers = [refusal]
        with pytest.raises(errors.Internal) as told:
            await client.fetch_changes(0)
        assert (told.value.reason, told.value.metadata["id"]) == (Reason.NOT_FOUND, "7")
        with pytest.raises(ValueError):
            async with translate_errors("snapshot"):
                raise ValueError("not of a call")


class _Stop(Exception):
    pass


@pytest.mark.parametrize("end", ["whole", "break", "error", "cancel"])
async def test_a_stream_has_ended_when_it_is_left(tmp_path: Path, end: str) -> None:
    async with served(tmp_path) as (directory, _):
        directory.answers = [[(5, [PAGES[1]])] * 50]
        gc.disable()
        try:
            before = _readers_held()
            async with grpc.aio.insecure_channel(f"unix:{tmp_path}/d") as channel:
                call = DirectoryServiceStub(channel).GetCatalogPages(GetCatalogPagesRequest())
                begun = asyncio.Event()
                reading = asyncio.create_task(_read_until(call, end, begun))
                await begun.wait()
                if end == "cancel":
                    reading.cancel()
                await asyncio.wait([reading])
                assert call.done()
                assert _readers_held() == before
        finally:
            gc.enable()


async def _read_until(call: Any, end: str, begun: asyncio.Event) -> None:
    with suppress(_Stop):
        async with read_stream(call) as messages:
            async for _ in messages:
                begun.set()
                if end == "break":
                    break
                if end == "error":
                    raise _Stop
                if end == "cancel":
                    await asyncio.Event().wait()


def _readers_held() -> int:
    """gRPC's readers of streams that are not closed; each holds its call and a message."""
    return sum(
        isinstance(each, AsyncGeneratorType)
        and each.__name__ == "_fetch_stream_responses"
        and each.ag_frame is not None
        for each in gc.get_objects()
    )
