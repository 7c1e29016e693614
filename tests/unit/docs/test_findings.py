"""Each finding that the summary can have is explained to those who operate."""

from __future__ import annotations

import re
from pathlib import Path

from drey.system.v1 import system_service_pb2 as pb
from drey_gateway.domain.findings import Code

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "operate.md"


def test_each_finding_has_its_paragraph() -> None:
    text = PAGE.read_text(encoding="utf-8")
    paragraphs = dict(re.findall(r"^### ([A-Z_]+)\n(.+?)(?=\n#)", text, re.M | re.S))
    codes = {name.removeprefix("FINDING_CODE_") for name, _ in pb.FindingCode.items()}
    assert paragraphs.keys() == codes - {"UNSPECIFIED"}
    # what it means, and what to do
    assert all(len(paragraph.split()) > 12 for paragraph in paragraphs.values())


def test_codes_are_those_of_the_contract() -> None:
    contract = {
        name.removeprefix("FINDING_CODE_"): number for name, number in pb.FindingCode.items()
    }
    assert {code.name: int(code) for code in Code} | {"UNSPECIFIED": 0} == contract
