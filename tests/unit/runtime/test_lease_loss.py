"""What the loss of a lease leaves of the task that held it."""

from __future__ import annotations

import asyncio

import pytest

from drey_runtime.lease import LeaseLost, Term, keep_term
from drey_runtime.retrying import reraise_cancellation


async def fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        raise ValueError("a newer owner was heard of") from None


async def fail_when_lost(term: Term) -> None:
    await term.lost.wait()
    raise ValueError("a newer owner was heard of")


@pytest.mark.parametrize("fails_first", [True, False])
async def test_a_body_that_fails_as_the_lease_is_lost_can_try_again(fails_first: bool) -> None:
    """Else the owner would end without a word at the next thing that it awaits."""
    for _ in range(2):
        term, lost = Term("shard-0", 1), asyncio.Event()
        with pytest.raises(ExceptionGroup) as raised:
            async with keep_term(term, lost.wait), asyncio.TaskGroup() as group:
                failing = fail_when_lost(term) if fails_first else fail_when_cancelled()
                group.create_task(failing)
                await asyncio.sleep(0)
                lost.set()
                await asyncio.sleep(600)
        assert raised.value.subgroup(ValueError) is not None
        assert not term.still_valid
        reraise_cancellation()


async def test_a_cancellation_by_another_stays_one() -> None:
    term, lost = Term("shard-0", 1), asyncio.Event()

    async def own() -> None:
        async with keep_term(term, lost.wait):
            await asyncio.sleep(600)

    owner = asyncio.create_task(own())
    await asyncio.sleep(0)
    lost.set()
    await term.lost.wait()
    owner.cancel()
    await asyncio.wait({owner})
    assert owner.cancelled()


async def test_a_loss_alone_is_a_lease_that_is_lost() -> None:
    for _ in range(2):
        lost = asyncio.Event()
        with pytest.raises(LeaseLost):
            async with keep_term(Term("shard-0", 1), lost.wait):
                lost.set()
                await asyncio.sleep(600)
        reraise_cancellation()
