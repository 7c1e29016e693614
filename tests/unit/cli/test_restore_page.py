"""A restore as one page for the logbook, and as rows; who interfered is said first."""

from __future__ import annotations

import csv
import io
import re
from types import SimpleNamespace
from typing import Any

import pytest

from drey_cli.commands import restore
from drey_cli.contracts import restore_pb2
from drey_cli.main import every_command
from drey_cli.output import Output
from drey_cli.render.restore_page import restore_csv, restore_html
from drey_cli.render.restores import restore_verdict
from drey_cli.render.table import text_of

from .test_plan_page import HOSTILE, _Page, number

AT_NS = 1_700_000_000_500_000_000
CHANGED = {**number(7.0), "receive_time_ns": AT_NS}
ITEMS = [
    restore_pb2.RestoreItem(
        number=1,
        name=HOSTILE,
        verdict=restore_pb2.VERDICT_VERIFIED,
        target=number(1.0),
        seen=number(1.0),
        interference=CHANGED,
        interferences=2,
        explanation="Done. Interference: at 22:13:20 it was changed.",
    ),
    restore_pb2.RestoreItem(number=2, name="B", verdict=restore_pb2.VERDICT_REFUSED),
    restore_pb2.RestoreItem(
        number=3,
        name="C",
        verdict=restore_pb2.VERDICT_SKIPPED,
        skip=restore_pb2.SKIP_REASON_READ_ONLY,
    ),
]
RESTORE = restore_pb2.Restore(
    id="0192f3a4",
    state=restore_pb2.RESTORE_STATE_COMPLETED,
    verdicts=[
        {"verdict": restore_pb2.VERDICT_VERIFIED, "pvs": 1},
        {"verdict": restore_pb2.VERDICT_REFUSED, "pvs": 1},
        {"verdict": restore_pb2.VERDICT_SKIPPED, "pvs": 1},
    ],
    interfered=1,
)


def test_the_page_says_who_interfered_and_loads_nothing() -> None:
    page = restore_html(RESTORE, ITEMS, utc=True)
    read = _Page()
    read.feed(page)
    assert read.loads == []
    assert "script" not in read.tags
    said = " ".join(read.said)
    assert HOSTILE in said
    first, last = said.index("Somebody else changed 1 PV meanwhile"), said.index("verified: 1 PV")
    assert first < said.index("refused: 1 PV") < last
    assert "7" in said[first : said.index("The restore")]


def test_the_rows_have_it_too() -> None:
    rows = list(csv.DictReader(io.StringIO(restore_csv(ITEMS, utc=True))))
    assert [row["verdict"] for row in rows] == ["verified", "refused", "skipped"]
    assert (rows[0]["interference"], rows[0]["interferences"]) == ("7", "2")
    assert "22:13:20" in rows[0]["interference time"]
    assert (rows[1]["interference"], rows[1]["interferences"]) == ("", "")
    assert rows[2]["left out"] == "read-only"


def test_the_verdict_says_both() -> None:
    verified = restore_pb2.Restore(
        all_verified=True, verdicts=[{"verdict": restore_pb2.VERDICT_VERIFIED, "pvs": 1}]
    )
    assert "meanwhile" not in text_of(restore_verdict(verified))
    verified.interfered = 1
    text = text_of(restore_verdict(verified))
    assert text.startswith("all verified")
    assert "somebody else changed 1 PV meanwhile" in text


def test_what_is_told_of_the_rest_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whichever command the table was drawn: `restore run` has no option for more rows."""
    items = [restore_pb2.RestoreItem(name=f"X{number}") for number in range(20)]
    monkeypatch.setattr(restore, "read_restore", lambda *_, **__: items)
    session: Any = SimpleNamespace(out=Output())
    known = restore_pb2.Restore(id="01900000-0000-7000-8000-000000000000")
    restore.show_restore(session, known, limit=20, everything=False)
    shown = " ".join("".join(capsys.readouterr()).split())
    hint = re.search(r"`drey (restore show .* --limit 0)` shows all", shown)
    assert hint is not None, shown
    words, arguments = hint[1].split()[:2], hint[1].split()[2:]
    (command,) = [command for name, command in every_command() if list(name) == words]
    context = command.make_context("drey", arguments)
    assert context.params["limit"] == 0 and known.id in context.params.values()
