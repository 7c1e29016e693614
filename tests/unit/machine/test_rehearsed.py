"""Records that are made from the channels of a plan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from drey_machine.rehearsed import (
    SimChannel,
    SimMachine,
    SimWrite,
    known_aliases,
    obstacle_text,
    place_channels,
    record_text,
)


def _made(*channels: SimChannel, writes: Any = (), records: Any = ()) -> SimMachine:
    placed = place_channels(channels, dict(records))
    return SimMachine(list(placed.values()), writes, known_aliases(placed.values()))


@pytest.mark.parametrize(
    ("channel", "kind", "fields"),
    [
        (SimChannel("X", "float64", value=1.5), "ao", ['VAL,"1.5"']),
        (SimChannel("X.VAL", "float64", value=math.nan), "ao", ['VAL,"nan"']),
        (
            SimChannel("X", "float64", value=1.0, low=-2.0, high=3.0, units="A"),
            "ao",
            ['DRVH,"3.0"', 'DRVL,"-2.0"', 'EGU,"A"'],
        ),
        (SimChannel("X", "int32", value=-7), "longout", ['VAL,"-7"']),
        (SimChannel("X", "int16", value=-7), "waveform", ['FTVL,"SHORT"', 'NELM,"1"']),
        (SimChannel("X", "float32", value=0.1), "waveform", ['FTVL,"FLOAT"']),
        (SimChannel("X", "enum", value=1, labels=["a", "b"]), "bo", ['ONAM,"b"']),
        (
            SimChannel("X", "enum", value=2, labels=["Off", 'say "hi"', ""]),
            "mbbo",
            [r'ONST,"say \x22hi\x22"', 'TWVL,"2"'],
        ),
        (SimChannel("X", "string", value="ab\\c\n"), "stringout", [r'VAL,"ab\x5cc\x0a"']),
        (SimChannel("X.VAL$", "string", 300, "short"), "lso", ['SIZV,"300"']),
        (SimChannel("X", "string", 4, ["a", "b"]), "waveform", ['FTVL,"STRING"', 'NELM,"4"']),
        (SimChannel("X", "uint8", 100, [1, 2]), "waveform", ['FTVL,"UCHAR"']),
        (SimChannel("X", "float64", 9, []), "waveform", ['NELM,"9"']),
    ],
)
def test_each_kind_of_channel_has_its_record(
    channel: SimChannel, kind: str, fields: list[str]
) -> None:
    text, _ = record_text(_made(channel))
    assert text.startswith(f'record({kind},"X")'.encode())
    for field in fields:
        assert f"field({field})".encode() in text


@pytest.mark.parametrize(
    ("channel", "why"),
    [
        (SimChannel("X", "int64", value=1), "Channel Access has no values of the kind int64"),
        (SimChannel("X", "", value=None), "kind unknown"),
        (SimChannel("X Y", "float64", value=1.0), "none of a record's field"),
        (SimChannel('X.VAL{"dbnd":{}}', "float64", value=1.0), "none of a record's field"),
        (SimChannel("X" * 61, "float64", value=1.0), "longer than 60 bytes"),
        (SimChannel("X", "enum", value=16), "16 states"),
        (SimChannel("X", "enum", value=0, labels=["n" * 26]), "25 bytes"),
    ],
)
def test_what_cannot_be_a_record_is_said(channel: SimChannel, why: str) -> None:
    assert why in obstacle_text(channel)


def test_a_field_that_no_such_record_has_is_served_apart() -> None:
    limit, done = SimChannel("M.DRVH", "float64", value=5.0), SimChannel("M.DMOV", "int32", value=1)
    placed = place_channels([SimChannel("M.VAL", "float64", value=1.0), limit, done], {})
    assert placed["M.VAL"].served_at == "M.VAL"
    assert placed["M.DRVH"].served_at == "M.DRVH"
    assert placed["M.DMOV"].served_at.startswith("rehearsal:")


def test_an_alias_of_a_record_is_one() -> None:
    made = _made(
        SimChannel("X", "float64", value=1.0),
        SimChannel("NICK.DRVH", "float64", value=4.0),
        records={"NICK.DRVH": "X"},
    )
    text, _ = record_text(made)
    assert b'alias("X","NICK")' in text
    assert b'field(DRVH,"4.0")' in text


def test_a_readback_is_where_it_is_now_and_where_it_was_stored() -> None:
    made = _made(
        SimChannel("X", "float64", value=1.0),
        SimChannel("X:RB", "float64", value=10.0),
        writes=[SimWrite("X", 0.0, "X:RB", target=3.0, reached=30.0)],
    )
    text, _ = record_text(made)
    for field in ('INPB,"10.0"', 'INPC,"1.0"', 'INPD,"10.0"', 'INPE,"3.0"', 'INPF,"30.0"'):
        assert f"field({field})".encode() in text
    assert b'field(FLNK,"X:RB")' in text


def test_nothing_follows_the_values_of_the_start() -> None:
    """Helpers are disabled until all values are there: else the start would set them off."""
    made = _made(
        SimChannel("X", "float64", value=1.0),
        SimChannel("X:RB", "int32", value=10),
        SimChannel("X:DONE", "int32", value=1),
        writes=[SimWrite("X", 2.5, "X:RB", done="X:DONE")],
    )
    text, later = record_text(made)
    helpers = [part for part in text.split(b"record(") if b'"rehearsal:' in part[:30]]
    assert len(helpers) == 3
    assert all(b'field(DISA,"1")' in helper for helper in helpers)
    assert [value for _, kind, value in later if kind == "int16"] == [0, 0, 0]
    assert b'field(DLY2,"2.5")' in text


def test_a_done_channel_leaves_its_value_within_the_write() -> None:
    """Who writes and then reads it must not find that of before."""
    made = _made(
        SimChannel("X", "float64", value=1.0),
        SimChannel("X:DONE", "int32", value=1),
        writes=[SimWrite("X", 2.5, done="X:DONE")],
    )
    text, _ = record_text(made)
    records = {part.split(b'"')[1]: part for part in text.split(b"record(")[1:]}
    follower = records[records[b"X"].split(b'field(FLNK,"')[1].split(b'"')[0]]
    assert follower.startswith(b"calcout")
    assert b'field(OUT,"X:DONE.VAL PP")' in follower
    assert b'field(INPA,"0.0")' in follower
    last = records[follower.split(b'field(FLNK,"')[1].split(b'"')[0]]
    assert last.startswith(b"seq")
    assert b'field(LNK3,"X:DONE.VAL PP")' in last


def test_a_machine_survives_its_file(tmp_path: Path) -> None:
    made = _made(
        SimChannel("X", "float64", 3, [math.inf, -0.0]),
        SimChannel("T", "string", value=b"caf\xe9".decode(errors="surrogateescape")),
        writes=[SimWrite("X", 0.5)],
    )
    made.write_file(tmp_path / "channels.json")
    assert record_text(SimMachine.read_file(tmp_path / "channels.json")) == record_text(made)
