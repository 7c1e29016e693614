"""What comes from bus or image is decoded, or refused with `Malformed`: nothing else, ever."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard

from drey.events.v1.changes_pb2 import CatalogChanged
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat, ValueBatch
from drey.storage.v1 import pages_pb2
from drey_core.directory import CatalogPage, Directory, MetadataIndex, MetadataPage
from drey_core.errors import Malformed
from drey_core.page_image import encode_page
from drey_core.page_storage import load_times, load_values, split_values, store_values
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SLOTS
from drey_core.values import ARRAY, Columns, Kind
from drey_core.wire import RowEncoder
from drey_gateway import mapping
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.watch import Fields
from drey_gateway.mapping_metadata import MetadataEncoder
from drey_runtime import edge
from drey_runtime.batches import decode_batch, encode_batches
from drey_runtime.directory_codec import (
    decode_catalog,
    decode_metadata,
    encode_catalog,
    encode_metadata,
)
from drey_runtime.image import _decode_pages
from drey_testing.fixtures_gateway import catalog_pages

MUTATIONS = 1000
VALUES = [1.5, b"\xff", [1, 2, 3], [b"a", b""], 7]
KINDS = [Kind.FLOAT64, Kind.STRING, Kind.INT32 | ARRAY, Kind.STRING | ARRAY, Kind.ENUM]
NUMBERS = (0, 1, 255, 2**20, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def columns() -> Columns:
    out = Columns.from_values(np.arange(257, 262), VALUES, KINDS)
    out.state[:] = 3
    return out


def batch() -> bytes:
    stamps = {"shard": 0, "epoch": 1, "sequence": 1, "time_ns": 5, "directory_version": 1}
    (raw,) = encode_batches(columns(), **stamps)
    return raw


def image_page() -> bytes:
    table = PageTable(np.array([1]))
    table.apply_batch(columns())
    page = encode_page(table.take_pages(np.array([0])), 0)
    found = pages_pb2.ImagePage(number=1, epoch=1, sequence=1, time_ns=1, page=page)
    return bytes(found.SerializeToString())


def stored_page() -> bytes:
    table = PageTable(np.array([1]))
    table.apply_batch(columns())
    return store_values(split_values(table.take_pages(np.array([0]))))[0]


def metadata_page() -> bytes:
    page = MetadataPage.empty_page(1)
    page.labels[3] = (b"OFF", b"\xff")
    return encode_metadata(page)


# --- what is accepted has to be usable: each decoder with what its users do next ---


def use_batch(raw: bytes) -> None:
    found, rows = decode_batch(raw)
    live = LiveState(1)
    live.take_directory(catalog_pages(4), [], np.array([1]), 1)
    live.resynchronise_shard(0, *_live_pages(), 0, np.zeros((1, PAGE_SLOTS), np.uint16))
    live.apply_batch(0, mapping.batch_message(found, rows))
    _encode(rows)


def _live_pages() -> tuple[Any, Any, Any]:
    pages, stamps = _decode_pages([1], [image_page()])
    return pages, stamps.epoch, np.zeros(1, np.uint64)


def use_image_page(raw: bytes) -> None:
    pages, stamps = _decode_pages([1], [raw])
    if not stamps.epoch[0]:
        assert not pages.values["state"].any()
        raise Malformed("counted, and taken for not there")
    live = LiveState(1)
    live.take_directory(catalog_pages(4), [], np.array([1]), 1)
    live.resynchronise_shard(0, pages, stamps.epoch, stamps.sequence, 0, stamps.ages)
    _encode(live.image.columns_of_channels(np.arange(256, 300)))
    table = PageTable(np.array([1]))
    table.replace_pages(np.array([0]), pages)
    table.take_pages(np.array([0]))


def _encode(rows: Columns) -> None:
    n = len(rows)
    encoder = RowEncoder([f"P{i}" for i in range(n)], np.arange(n))
    encoder.encode_rows(
        np.arange(n),
        rows,
        None,
        np.ones(n, np.uint8),
        sp_present=np.ones(n, bool),
        rb_present=np.zeros(n, bool),
        labels=lambda channel: (),
    )


def use_catalog(raw: bytes) -> None:
    Directory.from_pages(1, [decode_catalog(raw)])


def use_metadata(raw: bytes) -> None:
    index = MetadataIndex([decode_metadata(raw)])
    directory = Directory.from_pages(1, catalog_pages(4))
    list(MetadataEncoder().encode_rows(np.arange(4), directory, index, Fields.BOTH))


def use_stored(raw: bytes) -> None:
    load_values([raw])


def use_version(raw: bytes) -> None:
    found = edge.decode_directory_version(raw)
    dict(zip(found.pages, found.page_versions, strict=True))


EDGES: dict[str, tuple[bytes, Callable[[bytes], Any], Any]] = {
    "batch": (batch(), use_batch, ValueBatch),
    "image page": (image_page(), use_image_page, pages_pb2.ImagePage),
    "stored page": (stored_page(), use_stored, None),
    "catalog page": (encode_catalog(catalog_pages(4)[0]), use_catalog, pages_pb2.CatalogPage),
    "metadata page": (metadata_page(), use_metadata, pages_pb2.MetadataPage),
    "heartbeat": (
        Heartbeat(shard=0, epoch=3, sequence=4, owner="h:1").SerializeToString(),
        edge.decode_heartbeat,
        Heartbeat,
    ),
    "directory version": (
        DirectoryVersion(epoch=1, version=2, pages=[1], page_versions=[1]).SerializeToString(),
        use_version,
        DirectoryVersion,
    ),
    "catalog event": (
        CatalogChanged(version=7).SerializeToString(),
        edge.decode_catalog_changed,
        CatalogChanged,
    ),
}


def flipped(rng: random.Random, raw: bytes) -> bytes:
    """Bytes changed, cut, doubled or added."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0 if out:
                out[at % len(out)] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randint(1, 40)]
            case 2:
                out[at:at] = out[at : at + rng.randint(1, 40)]
            case _:
                out[at:at] = rng.randbytes(rng.randint(1, 9))
    return bytes(out)


def lied(rng: random.Random, raw: bytes, message: Any) -> bytes:
    """The same message, with one field that lies."""
    found = message.FromString(raw)
    field = rng.choice(message.DESCRIPTOR.fields)
    value = getattr(found, field.name)
    if field.is_repeated:
        if len(value):
            value.append(value[0])
    elif isinstance(value, bytes):
        setattr(found, field.name, flipped(rng, value))
    elif isinstance(value, bool):
        setattr(found, field.name, not value)
    elif isinstance(value, int):
        fitting = [n for n in NUMBERS if n < 2**31]
        signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
        wide = field.cpp_type in (field.CPPTYPE_UINT64, field.CPPTYPE_INT64)
        chosen = [n for n in NUMBERS if n < 2 ** (64 if wide else 32)] if not signed else fitting
        setattr(found, field.name, rng.choice(chosen))
    return bytes(found.SerializeToString())


@pytest.mark.parametrize("name", EDGES)
def test_nothing_but_the_named_error_leaves_an_edge(name: str) -> None:
    raw, use, message = EDGES[name]
    use(raw)
    accepted = 0
    for seed in range(MUTATIONS):
        rng = random.Random(seed)
        lie = message is not None and rng.random() < 0.6
        mutated = lied(rng, raw, message) if lie else flipped(rng, raw)
        try:
            use(mutated)
            accepted += 1
        except Malformed:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {mutated!r}") from error
    assert accepted < MUTATIONS, "nothing was ever refused"


@pytest.mark.parametrize("epoch", [0, 2**62 + 1, 2**63, 2**64 - 1])
def test_a_stamp_that_fits_nowhere_is_refused(epoch: int) -> None:
    with pytest.raises(Malformed):
        edge.decode_heartbeat(Heartbeat(epoch=epoch).SerializeToString())
    with pytest.raises(Malformed):
        edge.decode_directory_version(DirectoryVersion(epoch=epoch).SerializeToString())
    found = ValueBatch.FromString(batch())
    found.epoch = epoch
    with pytest.raises(Malformed):
        decode_batch(found.SerializeToString())


def test_a_page_number_out_of_range_takes_no_memory() -> None:
    version = DirectoryVersion(epoch=1, version=1, pages=[2**31], page_versions=[1])
    with pytest.raises(Malformed):
        edge.decode_directory_version(version.SerializeToString())
    catalog = pages_pb2.CatalogPage.FromString(encode_catalog(CatalogPage.empty_page(1)))
    catalog.number = 2**31
    with pytest.raises(Malformed):
        decode_catalog(catalog.SerializeToString())


@pytest.mark.parametrize("load", [load_values, load_times])
@pytest.mark.parametrize("version", [1, 2])
def test_a_bomb_is_not_unpacked(load: Callable[[bytes], Any], version: int) -> None:
    bomb = zstandard.ZstdCompressor().compress(b"")
    # a frame header that claims four gigabytes
    claimed = bomb[:4] + b"\xe0" + (2**32).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(Malformed):
        load([bytes([version]) + claimed])


def test_what_is_thrown_away_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    source = f"test {next(itertools.count())} {id(caplog)}"
    for _ in range(3):
        edge.note_error(Malformed("torn"), source)
    assert [r.getMessage() for r in caplog.records].count(
        f"thrown away from {source}: torn (further ones are only counted)"
    ) == 1
