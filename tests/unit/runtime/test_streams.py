"""A stream of another service is read by `read_stream` alone, which ends the call in every exit."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pool

import drey

ROOT = Path(__file__).parents[3]
READERS = {"read_stream", "stream"}
"""That of the runtime, and `Client.stream`, for the client library has nothing of the runtime."""
OWN_CALL = ROOT / "libs/client/drey_client/watch.py"
"""A watch reads message by message, with a limit of silence, and cancels its call."""


def _streaming_methods() -> set[str]:
    found = set()
    for module in pkgutil.walk_packages(drey.__path__, "drey."):
        if not module.name.endswith("_service_pb2"):
            continue
        file = importlib.import_module(module.name).DESCRIPTOR
        for service in file.services_by_name.values():
            assert descriptor_pool.Default().FindServiceByName(service.full_name)
            found |= {method.name for method in service.methods if method.server_streaming}
    return found


def _calls_read_elsewise(tree: ast.Module, streaming: set[str]) -> Iterator[ast.Call]:
    """Calls of a stub's streaming method that are not the argument of a reader."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = {
        id(argument)
        for call in calls
        if isinstance(call.func, ast.Name | ast.Attribute)
        and (call.func.id if isinstance(call.func, ast.Name) else call.func.attr) in READERS
        for argument in call.args
    }
    for call in calls:
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr in streaming
            and id(call) not in given
        ):
            yield call


def test_nothing_reads_a_stream_of_another_service_but_the_one_reader() -> None:
    streaming = _streaming_methods()
    assert {"ReadSnapshot", "ResolveChannels", "GetCatalogPages", "WatchPvs"} <= streaming
    given, elsewise = 0, []
    for folder in ("services", "libs/runtime", "libs/client", "libs/cli", "libs/stack"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            given += text.count("read_stream(self._stub.")
            calls = list(_calls_read_elsewise(ast.parse(text), streaming))
            if path == OWN_CALL:
                assert len(calls) == 1 and "call.cancel()" in text
                continue
            elsewise += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls]
    assert given >= 7
    assert not elsewise, f"give these calls to drey_runtime.upstream.read_stream: {elsewise}"
