"""The COPY stream, taken apart as Postgres does."""

from __future__ import annotations

import struct
import uuid

import numpy as np
import pytest

from drey_core.errors import Internal
from drey_restore.adapters.copy import copy_rows
from drey_restore.domain import blob

KEY = "00000000-0000-7000-8000-000000000001"


def fields(stream: bytes) -> list[list[bytes]]:
    assert stream.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    at, out = 19, []
    while (count := struct.unpack_from(">h", stream, at)[0]) >= 0:
        at, row = at + 2, []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", stream, at)
            row.append(stream[at + 4 : at + 4 + length])
            at += 4 + length
        out.append(row)
    assert at + 2 == len(stream)
    return out


def test_rows_of_unequal_lengths() -> None:
    texts = ["", "abc", "not taken", "ä", "x\0y", "abd"]
    rows = np.array([0, 1, 3, 4, 5])
    section = blob.text_section(texts)
    numbers = np.array([10, -1, 12, 13, 14])
    stream = copy_rows(KEY, [(numbers, "i8"), (numbers / 2, "f8")], [section, section], rows)
    found = sorted(fields(stream), key=lambda row: row[1])
    assert {row[0] for row in found} == {uuid.UUID(KEY).bytes}
    by_number = {struct.unpack(">q", row[1])[0]: row[2:] for row in found}
    assert by_number[-1] == [struct.pack(">d", -0.5), b"abc", b"abc"]
    assert by_number[10][1] == b""
    assert by_number[12][1].decode() == "ä"
    assert by_number[13][1].decode() == "x\N{REPLACEMENT CHARACTER}y"
    assert by_number[14][1] == b"abd"


def test_no_rows() -> None:
    none = np.zeros(0, np.int64)
    assert fields(copy_rows(KEY, [(none, "i8")], [blob.text_section([])], none)) == []


@pytest.mark.parametrize("texts", [[], [""], ["a", "", "bc"], ["ä", "\udcff", "x\0"], ["a"] * 300])
def test_texts_come_back(texts: list[str]) -> None:
    assert blob.texts_of(blob.text_section(texts)) == texts


@pytest.mark.parametrize("raw", [b"", b"\1\0\0\0", b"\1\0\0\0\2\0\0\0a", b"\0\0\0\0a"])
def test_torn_texts_are_refused(raw: bytes) -> None:
    with pytest.raises(Internal):
        blob.texts_of(raw)
