"""Every RPC that gives a page cuts it by the bytes of its items, not only by their number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from drey_gateway import app

ROOT = Path(__file__).parents[2]
SERVICERS = sorted((ROOT / "services").rglob("*servicer*.py")) + sorted(
    (ROOT / "services").glob("*/*/servicers/*.py")
)
UNBUILT = {"drey.catalog.v1.CatalogService.ListScopes"}
PUBLIC = [app.ACCESS, app.AUDIT, app.JOB, *app.FORWARDED]


def paged_methods() -> Iterator[MethodDescriptor]:
    for service in PUBLIC:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            if "next_page_token" in method.output_type.fields_by_name:
                yield method


def handlers(method: MethodDescriptor) -> Iterator[str]:
    """The sources of functions of that name which take its request."""
    for path in SERVICERS:
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.AsyncFunctionDef) and node.name == method.name:
                text = ast.get_source_segment(source, node) or ""
                if method.input_type.name in text:
                    yield text


@pytest.mark.parametrize("method", list(paged_methods()), ids=lambda method: method.full_name)
def test_a_page_is_cut_by_bytes(method: MethodDescriptor) -> None:
    if method.full_name in UNBUILT:
        pytest.skip("not built")
    found = list(handlers(method))
    assert found, "no servicer has it"
    # called, or given to a thread that calls it
    assert all(re.search(r"\bcut_page[(,]", text) for text in found), "use paging.cut_page"
