"""What IOCs and other people wrote is shown on the terminal and never acts on it."""

import io
import json
import logging
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from drey.common.v1 import value_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey_cli.errors import CliError
from drey_cli.output import Output, rich_table
from drey_cli.render.snapshots import snapshots_table
from drey_cli.render.table import Cell, Column, Table, folded_columns, name_field, table_of
from drey_cli.render.values import rows_table
from drey_runtime.logs import TextFormatter
from drey_testing.corpus import HOSTILE_CHARACTERS

HOSTILE = HOSTILE_CHARACTERS.replace("\ud800", "")
TEXT = f"a{HOSTILE}b"


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def is_terminal(request):
    return request.param


class Written:
    """Streams in the place of the process's own, for the time of one test."""

    def __init__(self, monkeypatch, is_terminal):
        self._streams = []
        for name in ("stdout", "stderr"):
            stream = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
            monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
            monkeypatch.setattr(f"sys.{name}", stream)
            self._streams.append(stream)

    def text(self):
        for stream in self._streams:
            stream.flush()
        text = "".join(stream.buffer.getvalue().decode() for stream in self._streams)
        return re.sub(r"\x1b\[[0-9;]*m", "", text)  # the styles are ours


def row(text):
    value = value_pb2.Value(string_value=text, state=value_pb2.CONNECTION_STATE_CONNECTED)
    return value_pb2.PvRow(number=1, name=text, setpoint=value)


WAYS = {
    "text": lambda out: out.print_text(TEXT),
    "styled text": lambda out: out.print_text(TEXT, "bold"),
    "cell": lambda out: out.draw_parts(Cell(TEXT, "red")),
    "note": lambda out: out.print_note(TEXT),
    "question": lambda out: out.ask_question(TEXT),
    "error": lambda out: out.print_error(
        CliError(TEXT, reason=TEXT, field=TEXT, remedy=TEXT, metadata={"pv": TEXT})
    ),
    "table": lambda out: out.print_table(Table((Column("x"),), [[TEXT], [Cell(TEXT)]], TEXT, TEXT)),
    "document": lambda out: out.write_document({TEXT: [TEXT]}),
    "line": lambda out: out.write_line({TEXT: TEXT}),
    "row": lambda out: out.print_table(rows_table([row(TEXT)], {}, utc=True)),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_character_acts_on_the_terminal(monkeypatch, is_terminal, way):
    written = Written(monkeypatch, is_terminal)
    with Path(os.devnull).open() as nothing:  # a question waits on a real file
        monkeypatch.setattr("sys.stdin", nothing)
        WAYS[way](Output(color=False))
    assert "a" in written.text()
    assert not set(written.text()) & set(HOSTILE)


def test_a_file_goes_to_a_pipe_as_it_is_and_onto_a_terminal_escaped(monkeypatch, is_terminal):
    written = Written(monkeypatch, is_terminal)
    Output().write_raw(TEXT.encode())
    assert (written.text() == TEXT) is not is_terminal
    assert bool(set(written.text()) & set(HOSTILE)) is not is_terminal


def test_a_document_says_the_same_after_escaping(monkeypatch, is_terminal):
    written = Written(monkeypatch, is_terminal)
    document = {TEXT: TEXT, "plain": "Größe 束流\n"}
    Output().write_document(document)
    assert json.loads(written.text()) == document
    assert "束流" in written.text()


def test_lines_of_a_log_stay_lines():
    record = logging.LogRecord("x", logging.INFO, "", 0, "no PV %s", (f"{TEXT}\nforged",), None)
    line = TextFormatter("test").format(record)
    assert not set(line) & {*HOSTILE, "\n"}


SNAPSHOTS = [
    snapshot_pb2.Snapshot(
        id=f"01930000-0000-7000-8000-00000000{number:04x}",
        title="a title of some length, as people write them",
        take_time={"seconds": 1_700_000_000, "nanos": 123_456_789},
        pv_count=40_000,
        labels=["machine-studies", "2026-run3"],
    )
    for number in range(3)
]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_fits_the_terminal_and_nothing_of_it_is_cut_off(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    written = Written(monkeypatch, is_terminal=True)
    Output(color=False).print_table(snapshots_table(SNAPSHOTS, utc=True))
    lines = written.text().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in written.text()
    shown = "".join(lines).replace(" ", "")
    if width >= 200:
        assert all(snapshot.id in shown for snapshot in SNAPSHOTS)


@pytest.mark.parametrize("width", [40, 80])
def test_a_pipe_gets_whole_lines_whatever_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    written = Written(monkeypatch, is_terminal=False)
    Output().print_table(snapshots_table(SNAPSHOTS, utc=True))
    head, *rows = written.text().splitlines()
    assert head.startswith("ID")
    for row, snapshot in zip(rows, SNAPSHOTS, strict=True):
        assert row.startswith(snapshot.id) and row.endswith("machine-studies 2026-run3")


def test_a_list_fits_a_narrow_terminal_and_its_ids_can_still_be_typed(monkeypatch):
    snapshots = [
        snapshot_pb2.Snapshot(
            id=f"0193f3a4-0000-7000-8000-00000000{index:04x}",
            title="before shift 2",
            take_time={"seconds": 1_700_000_000},
            pv_count=40_000,
            actor={"principal": "alice"},
        )
        for index in range(3)
    ]
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Written(monkeypatch, is_terminal=True)
    Output().print_table(snapshots_table(snapshots, utc=False))
    lines = terminal.text().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(f"00000000{index:04x}" in line for line in lines) for index in range(3))
    pipe = Written(monkeypatch, is_terminal=False)
    Output().print_table(snapshots_table(snapshots, utc=False))
    assert all(snapshot.id in pipe.text() for snapshot in snapshots)


def test_a_narrow_terminal_cuts_no_number_name_or_id_while_text_can_be_folded():
    table = Table(
        (
            Column("PV", whole=True),
            Column("now", right=True),
            Column("class"),
            Column("what it means"),
        )
    )
    table.add_row("GONE:LI20:901:BDES", "-123456.789", "disconnected-in-both", "as it was " * 6)
    assert folded_columns(table, 200) == set()
    assert folded_columns(table, 60) == {2, 3}
    assert folded_columns(table, 48) == {0, 2, 3}
    assert folded_columns(table, 30) is None, "then all are folded: nothing is cut off"
    console = Console(width=60, file=io.StringIO())
    with console.capture() as capture:
        console.print(rich_table(table, 60))
    drawn = capture.get()
    assert "GONE:LI20:901:BDES" in drawn and "-123456.789" in drawn
    assert all(len(line) <= 60 for line in drawn.splitlines())


@pytest.mark.parametrize("limit", [0, 2, 3])
def test_a_table_says_what_it_leaves_out(limit):
    table = table_of("ABC", name_field("PV", lambda name: name), limit=limit)
    shown = limit or 3
    assert [cell for (cell,) in table.rows] == list("ABC")[:shown]
    assert table.note == ("the first 2 of 3; --limit 0 shows all" if shown < 3 else "")
