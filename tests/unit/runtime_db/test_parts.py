"""What needs no server: hashes, keys, codecs, the translation of errors."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.errors import NotFound, Reason, Unavailable
from drey_runtime.audit import GENESIS, HashedRow, canonical_json, chain_hash
from drey_runtime.database import guard_connection, is_unavailable
from drey_runtime.jobs import JobState
from drey_runtime.jobs.changes import JobNotice, decode_notice
from drey_runtime.lease_postgres import lock_key
from drey_runtime.migrate import migrations_of
from drey_runtime.retrying import backoff_delay


def test_canonical_json_ignores_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": "π"}) == '{"a":"\\u03c0","b":1}'
    assert canonical_json({"a": "π", "b": 1}) == canonical_json({"b": 1, "a": "π"})
    assert canonical_json(None) is None
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("nan")})


FIELDS: dict[str, Any] = {
    "seq": 1,
    "at_ns": 2,
    "actor": "ann",
    "role": "operator",
    "action": "pv.update",
    "object": "pvs/1",
    "request_id": "r",
    "before": None,
    "after": "{}",
}


def test_the_hash_of_a_row_is_fixed() -> None:
    """Rows written by an older version must verify: this value may never change."""
    assert chain_hash(GENESIS, HashedRow(**FIELDS)).hex() == GOLDEN


GOLDEN = "3382e5aa447608ef643ab3cca2bee4cb4fabf8a0efbffc9ff5b819396440c5b0"


@pytest.mark.parametrize("name", list(FIELDS))
def test_each_field_is_in_the_hash(name: str) -> None:
    changed = dict(FIELDS)
    changed[name] = 7 if isinstance(FIELDS[name], int) else "other"
    assert chain_hash(GENESIS, HashedRow(**changed)) != chain_hash(GENESIS, HashedRow(**FIELDS))
    assert chain_hash(bytes(31) + b"\1", HashedRow(**FIELDS)) != chain_hash(
        GENESIS, HashedRow(**FIELDS)
    )


def test_the_lock_of_a_lease_is_fixed() -> None:
    """Monitors of two versions must exclude each other: these values may never change."""
    assert lock_key("shard-0") == 237071746847170219
    assert lock_key("shard-1") != lock_key("shard-0")


@given(st.integers(min_value=0))
def test_backoff_is_positive_and_capped(attempt: int) -> None:
    assert 0 < backoff_delay(attempt, first_s=0.05, cap_s=2.0) <= 2.0


@pytest.mark.parametrize(
    "error",
    [
        OSError("refused"),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.AdminShutdownError("shutting down"),
        asyncpg.InterfaceError("whatever it says"),
        asyncpg.InternalClientError("in the middle of something"),
    ],
)
def test_a_lost_database_is_unavailable(error: Exception) -> None:
    class Closed:
        def is_closed(self) -> bool:
            return True

    with pytest.raises(Unavailable) as caught, guard_connection(Closed()):
        raise error
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    assert is_unavailable(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        NotFound("x"),
        ValueError("x"),
        asyncpg.UniqueViolationError("x"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        asyncpg.UndefinedTableError("x"),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, guard_connection():
        raise error
    assert caught.value is error


def test_a_connection_that_its_pool_took_away_is_lost() -> None:
    class Detached:
        def is_closed(self) -> bool:
            raise asyncpg.InterfaceError("connection has been released back to the pool")

    with pytest.raises(Unavailable), guard_connection(Detached()):
        raise asyncpg.InterfaceError("cannot call Connection.execute()")


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("53100", "free space"),
        ("53200", "out of memory"),
        ("53300", "max_connections"),
        ("53400", "resource"),
        ("28P01", "password"),
        ("28000", "password"),
        ("3D000", "no database"),
        ("57014", "longer than it may"),
        ("57P01", "ended the session"),
        ("57P02", "ended the session"),
        ("57P03", "starts or stops"),
        ("57P05", "ended the session"),
        ("25006", "primary"),
        ("25P03", "stood still"),
        ("55P03", "another session"),
        ("58030", "log"),
        ("08006", "lost"),
        ("42501", "--application-role"),
        ("40001", "try again"),
        ("40P01", "try again"),
    ],
)
def test_what_the_server_says_of_itself_has_a_name(state: str, remedy: str) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "words of the server", "S": "ERROR"})
    with pytest.raises(Unavailable, match=remedy) as caught, guard_connection():
        raise error
    assert is_unavailable(caught.value)


def test_a_trigger_that_refuses_is_a_defect() -> None:
    fields = {"C": "42501", "M": "audit.entry is immutable", "W": "PL/pgSQL function"}
    with pytest.raises(asyncpg.InsufficientPrivilegeError), guard_connection():
        raise asyncpg.PostgresError.new(fields)


def test_a_notice_of_a_job_is_read_or_is_none() -> None:
    job_id = "0197c0de-0000-7000-8000-000000000001"
    assert decode_notice(f"{job_id} 7 queued snapshot") == JobNotice(job_id, 7, True, "snapshot")
    assert decode_notice(f"{job_id} 8 running a b") == JobNotice(job_id, 8, False, "a b")
    for text in ("", "j 7 queued snapshot", f"{job_id} x queued snapshot", f"{job_id} 7 queued"):
        assert decode_notice(text) is None


def test_which_states_are_ends() -> None:
    assert [state for state in JobState if not state.ended] == [JobState.QUEUED, JobState.RUNNING]


def test_our_own_migrations_are_in_order() -> None:
    assert migrations_of("drey_runtime")[0].name == "runtime"
