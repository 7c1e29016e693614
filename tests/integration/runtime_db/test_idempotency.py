from __future__ import annotations

import asyncio

import pytest

from drey_core.errors import AlreadyExists, Internal, InvalidArgument, Reason
from drey_runtime.database import Database
from drey_runtime.idempotency import forget_old_answers, run_once


async def call(db: Database, request_id: str, request: bytes, done: list[bytes]) -> bytes | None:
    async with (
        db.begin_transaction() as conn,
        run_once(conn, "/drey.Some/Do", "ann", request_id, request) as slot,
    ):
        if slot.seen is None:
            await asyncio.sleep(0.01)
            done.append(request)
            slot.response = b"answer %d" % len(done)
    return slot.response


async def test_a_repeat_answers_the_same_and_does_nothing(db: Database) -> None:
    done: list[bytes] = []
    assert await call(db, "r1", b"x", done) == b"answer 1"
    assert await call(db, "r1", b"x", done) == b"answer 1"
    assert done == [b"x"]


async def test_duplicates_in_parallel_run_once(db: Database) -> None:
    done: list[bytes] = []
    answers = await asyncio.gather(*(call(db, "r1", b"x", done) for _ in range(10)))
    assert answers == [b"answer 1"] * 10
    assert done == [b"x"]


async def test_another_request_under_the_same_id_is_refused(db: Database) -> None:
    done: list[bytes] = []
    await call(db, "r1", b"x", done)
    with pytest.raises(AlreadyExists) as caught:
        await call(db, "r1", b"y", done)
    assert (caught.value.reason, caught.value.field) == (Reason.REQUEST_ID_REUSED, "request_id")


async def test_no_id_remembers_nothing(db: Database) -> None:
    done: list[bytes] = []
    await call(db, "", b"x", done)
    await call(db, "", b"x", done)
    assert len(done) == 2


async def test_a_failed_first_call_leaves_the_id_free(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with (
            db.begin_transaction() as conn,
            run_once(conn, "/drey.Some/Do", "ann", "r1", b"x"),
        ):
            raise ZeroDivisionError
    done: list[bytes] = []
    assert await call(db, "r1", b"other", done) == b"answer 1"


async def test_ids_of_others_do_not_meet(db: Database) -> None:
    done: list[bytes] = []
    await call(db, "r1", b"x", done)
    async with (
        db.begin_transaction() as conn,
        run_once(conn, "/drey.Some/Do", "bob", "r1", b"y") as slot,
    ):
        assert slot.seen is None
        slot.response = b"his"


async def test_misuse_is_loud(db: Database) -> None:
    with pytest.raises(Internal):
        async with db.acquire_connection() as conn, run_once(conn, "m", "p", "r", b""):
            pass
    with pytest.raises(Internal):
        async with db.begin_transaction() as conn, run_once(conn, "m", "p", "r", b""):
            pass
    with pytest.raises(InvalidArgument):
        async with db.begin_transaction() as conn, run_once(conn, "m", "p", "r" * 300, b""):
            pass


async def test_old_answers_are_forgotten(db: Database) -> None:
    async with db.begin_transaction() as conn:
        async with run_once(conn, "m", "p", "old", b"", at_ns=1) as slot:
            slot.response = b""
        async with run_once(conn, "m", "p", "new", b"", at_ns=100) as slot:
            slot.response = b""
        assert await forget_old_answers(conn, now_ns=110, keep_ns=50) == 1
