"""Functions that a reader takes in at once: how long they are, and how much they are told.

The lists only shrink: what is on one and has become short is taken off it, and nothing is added.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MOST_LINES, MOST_PARAMETERS = 40, 6
LEFT_OUT = ("/libs/contracts/", "/.venv/", "/build/")

LONG = {
    "adapters/expressions.py:_checked_class",
    "adapters/store.py:finish_restore",
    "ca/conformance_life.py:test_everything_comes_back_otherwise",
    "cluster/api_server.py:start",
    "commands/restore.py:create_plan",
    "commands/snapshot_compare.py:compare",
    "commands/snapshot_take.py:take_snapshot",
    "domain/balance.py:plan_standbys",
    "domain/conversion.py:convert_values",
    "domain/edits.py:edit_source",
    "domain/findings.py:_of_ioc",
    "domain/findings.py:_of_owner",
    "domain/findings.py:of_instances",
    "domain/watch.py:reselect_rows",
    "drey_cli/following.py:_follow_stream",
    "drey_client/client.py:take_snapshot",
    "drey_core/directory.py:from_pages",
    "drey_core/pages.py:columns_of_channels",
    "drey_gateway/app.py:main",
    "drey_gateway/breakers.py:force_breaker",
    "drey_gateway/watching.py:begin_baseline",
    "drey_machine/rehearsal_run.py:run_rehearsal",
    "drey_monitor/app.py:main",
    "drey_restore/app.py:_start_work",
    "drey_restore/mapping.py:plan_request",
    "drey_runtime/auth.py:authenticate_call",
    "drey_runtime/bus.py:_connect_once",
    "drey_runtime/idempotency.py:run_once",
    "drey_runtime/server.py:serve_grpc",
    "drey_snapshot/app.py:main",
    "drey_stack/envoy_config.py:_cluster_config",
    "drey_stack/envoy_config.py:_connection_manager",
    "drey_stack/envoy_config.py:_virtual_host",
    "drey_stack/process.py:spawn_process",
    "render/snapshots.py:snapshot_facts",
    "snapshots/mapping.py:snapshot_message",
    "usecases/approvals.py:_decide_in",
    "usecases/beginning.py:begin_restore",
    "usecases/ending.py:end_by_journal",
    "usecases/gathering.py:compute_items",
    "usecases/restores.py:_begin_restore",
    "usecases/restores.py:_continue_interrupted",
    "usecases/restores.py:abort",
    "usecases/rollback.py:begin_rollback",
    "usecases/start_check.py:run",
    "usecases/take.py:_insert_snapshot",
    "usecases/writer.py:write_once",
}
WIDE = {
    "adapters/store.py:journal_intent",
    "commands/pv_edit.py:set_pv",
    "commands/pv_watch.py:watch_pvs",
    "commands/restore.py:create_plan",
    "commands/restore.py:plan_undo",
    "commands/restore_rehearse.py:rehearse_plan",
    "commands/snapshot.py:list_snapshots",
    "commands/snapshot_compare.py:compare",
    "commands/snapshot_drift.py:watch_drift",
    "commands/snapshot_take.py:take_snapshot",
    "commands/up.py:up_command",
    "domain/differences.py:_compare_sides",
    "domain/drift.py:of_columns",
    "domain/drift_rows.py:encode_rows",
    "drey_cli/errors.py:__init__",
    "drey_client/client.py:take_snapshot",
    "drey_client/client.py:watch",
    "drey_core/selector.py:__init__",
    "drey_core/wire.py:encode_rows",
    "drey_machine/machine.py:__init__",
    "drey_runtime/database.py:__init__",
    "drey_runtime/database.py:_make_pool",
    "drey_runtime/database.py:open_pool",
    "drey_runtime/instances.py:__init__",
    "drey_stack/process.py:spawn_process",
    "usecases/plans.py:__init__",
    "usecases/restores.py:__init__",
}


def parameter_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without `self` and `cls`."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    bound = positional[:1] and positional[0].arg in ("self", "cls")
    starred = [each for each in (given.vararg, given.kwarg) if each is not None]
    return len(positional) + len(given.kwonlyargs) + len(starred) - bool(bound)


def too_large() -> tuple[set[str], set[str]]:
    """(too long, told too much), as `package/module.py:function`."""
    long, wide = set[str](), set[str]()
    for path in [*(ROOT / "libs").rglob("*.py"), *(ROOT / "services").rglob("*.py")]:
        if any(each in path.as_posix() for each in LEFT_OUT):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{path.parent.name}/{path.name}:{node.name}"
                if (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES:
                    long.add(place)
                if parameter_count(node) > MOST_PARAMETERS:
                    wide.add(place)
    return long, wide


def test_no_function_becomes_too_large() -> None:
    long, wide = too_large()
    assert long - LONG == set(), f"longer than {MOST_LINES} lines: make parts of it"
    assert wide - WIDE == set(), (
        f"more than {MOST_PARAMETERS} parameters: which of them are one thing?"
    )


def test_the_lists_hold_nothing_that_is_small_by_now() -> None:
    long, wide = too_large()
    assert LONG - long == set()
    assert WIDE - wide == set()
