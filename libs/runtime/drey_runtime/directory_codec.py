"""Directory pages: core columns to `drey.events.v1` and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from drey.storage.v1 import pages_pb2
from drey_core.directory import CatalogPage, MetadataPage
from drey_core.errors import Malformed
from drey_core.pages import PAGE_LIMIT, PAGE_SLOTS
from drey_runtime.edge import parse_guard


def encode_catalog(page: CatalogPage) -> bytes:
    """A catalog page; equal pages give equal bytes."""
    return pages_pb2.CatalogPage(
        number=page.number,
        pv_numbers=page.pv_number.astype("<i8").tobytes(),
        roles=page.role.tobytes(),
        protocols=page.protocol.tobytes(),
        read_only=page.read_only.tobytes(),
        absolute_tolerances=page.absolute.astype("<f8").tobytes(),
        relative_tolerances=page.relative.astype("<f8").tobytes(),
        names=page.names,
        addresses=page.addresses,
        devices=page.devices,
    ).SerializeToString(deterministic=True)


def decode_catalog(raw: bytes) -> CatalogPage:
    """Inverse of `encode_catalog`. Raises `Malformed` on a torn page."""
    with parse_guard("a catalog page"):
        return _catalog_page(raw)


def check_catalog(raw: bytes) -> int:
    """The number of an encoded catalog page that is whole. Raises `Malformed` on a torn one.

    For who passes pages on as they are: a third of the work of `decode_catalog`.
    """
    with parse_guard("a catalog page"):
        page = pages_pb2.CatalogPage.FromString(raw)
    _check_number(page.number, page.names, page.addresses, page.devices, page.roles, page.protocols)
    _check_number(page.number, page.read_only)
    for column in (page.pv_numbers, page.absolute_tolerances, page.relative_tolerances):
        if len(column) != 8 * PAGE_SLOTS:
            raise Malformed(f"directory page {page.number} has a column of {len(column)} bytes")
    return int(page.number)


def _catalog_page(raw: bytes) -> CatalogPage:
    page = pages_pb2.CatalogPage.FromString(raw)
    _check_number(page.number, page.names, page.addresses, page.devices)
    return CatalogPage(
        number=page.number,
        pv_number=_decode_column(page.pv_numbers, "<i8"),
        role=_decode_column(page.roles, "u1"),
        protocol=_decode_column(page.protocols, "u1"),
        read_only=_decode_column(page.read_only, "u1"),
        absolute=_decode_column(page.absolute_tolerances, "<f8"),
        relative=_decode_column(page.relative_tolerances, "<f8"),
        names=_shared_texts(page.names),
        addresses=list(page.addresses),
        devices=_shared_texts(page.devices),
    )


def _shared_texts(texts: Iterable[str]) -> list[str]:
    """The same texts, equal ones as one object: neighbours belong to one PV or to one device."""
    known_texts: dict[str, str] = {}
    return [known_texts.setdefault(text, text) for text in texts]


def encode_metadata(page: MetadataPage) -> bytes:
    """A metadata page; equal pages give equal bytes."""
    entries = sorted(page.labels)
    return pages_pb2.MetadataPage(
        number=page.number,
        kinds=page.kind.tobytes(),
        counts=page.count.astype("<i8").tobytes(),
        readable=page.readable.tobytes(),
        writable=page.writable.tobytes(),
        precisions=page.precision.astype("<i2").tobytes(),
        limits=np.ascontiguousarray(page.limits, "<f8").tobytes(),
        units=page.units,
        hosts=page.hosts,
        enum_entries=np.array(entries, "<u2").tobytes(),
        enum_labels=[pages_pb2.EnumLabels(labels=page.labels[e]) for e in entries],
    ).SerializeToString(deterministic=True)


def decode_metadata(raw: bytes) -> MetadataPage:
    """Inverse of `encode_metadata`. Raises `Malformed` on a torn page."""
    with parse_guard("a metadata page"):
        return _metadata_page(raw)


def _metadata_page(raw: bytes) -> MetadataPage:
    page = pages_pb2.MetadataPage.FromString(raw)
    _check_number(page.number, page.units, page.hosts)
    entries = np.frombuffer(page.enum_entries, "<u2").tolist()
    return MetadataPage(
        number=page.number,
        kind=_decode_column(page.kinds, "u1"),
        count=_decode_column(page.counts, "<i8"),
        readable=_decode_column(page.readable, "u1"),
        writable=_decode_column(page.writable, "u1"),
        precision=_decode_column(page.precisions, "<i2"),
        limits=np.frombuffer(page.limits, "<f8").reshape(8, PAGE_SLOTS),
        units=list(page.units),
        hosts=list(page.hosts),
        labels={e: tuple(x.labels) for e, x in zip(entries, page.enum_labels, strict=True)},
    )


def _decode_column(raw: bytes, dtype: str) -> Any:
    column = np.frombuffer(raw, dtype)
    if len(column) != PAGE_SLOTS:
        raise Malformed(f"a directory page with a column of {len(column)} entries")
    return column


def _check_number(number: int, *lists: Any) -> None:
    if number >= PAGE_LIMIT:
        raise Malformed(f"a directory page with the number {number}")
    for column in lists:
        if len(column) != PAGE_SLOTS:
            raise Malformed(f"directory page {number} has a list of {len(column)} entries")
