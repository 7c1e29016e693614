"""The page that is shipped is the one of the sources, and it is all there; without Node."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

from google.protobuf import json_format

from drey.restore.v1 import restore_pb2
from drey_client.plan_digest import plan_digest
from drey_stack.page_files import page_files

ROOT = Path(__file__).resolve().parents[3]


def test_the_built_page_is_that_of_the_sources() -> None:
    spec = importlib.util.spec_from_file_location("web_record", ROOT / "web" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recorded = json.loads(module.RECORD.read_text())
    assert recorded == module.record(), "the built page is not that of web/: run `make web`"


def test_the_page_loads_nothing_but_its_own_files() -> None:
    files = {each.path: each for each in page_files()}
    page = files["/"].file.read_text()
    loaded = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert loaded <= set(files), "the page names files that are not served"
    assert any(path.endswith(".js") for path in loaded)
    assert "<style" not in page
    assert "<script>" not in page


def test_only_files_named_by_their_content_are_kept_by_browsers() -> None:
    for each in page_files():
        is_kept = "immutable" in each.headers["cache-control"]
        assert is_kept == bool(re.fullmatch(r"/assets/[\w-]+-[\w-]{8}\.\w+", each.path)), each.path


def test_the_page_may_run_no_script_but_its_own() -> None:
    (page,) = (each for each in page_files() if each.path == "/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_command_computes_the_digest_that_the_page_is_tested_with() -> None:
    golden = json.loads((ROOT / "web" / "test" / "plan.json").read_text())
    plan = json_format.ParseDict(golden["plan"], restore_pb2.Plan())
    items = [json_format.ParseDict(item, restore_pb2.PlanItem()) for item in golden["items"]]
    assert len(items) > 30
    assert plan_digest(plan, items) == plan.digest
