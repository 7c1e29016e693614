"""Whether a process can do its work: every service that it serves is looked at."""

from __future__ import annotations

import asyncio

import pytest

from drey_runtime.server import Health, Readiness


async def test_a_process_serves_when_all_its_services_do() -> None:
    health, ready = Health(["a.A", "b.B"]), {"a.A": True, "b.B": False}
    looking = asyncio.create_task(
        Readiness(health, {"a.A": lambda: ready["a.A"], "b.B": lambda: ready["b.B"]}).run()
    )
    while not health.serves_service("a.A"):
        await asyncio.sleep(0.01)
    seen = [health.serving]
    ready["b.B"] = True
    while not seen[-1]:
        await asyncio.sleep(0.01)
        seen.append(health.serving)
    assert seen[0] is False
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


@pytest.mark.parametrize("needs", [{}, {"a.A": bool}, {"a.A": bool, "b.B": bool, "c.C": bool}])
def test_a_service_that_nobody_looks_at_is_a_defect_at_the_start(needs: dict[str, type]) -> None:
    with pytest.raises(ValueError, match=r"b\.B|c\.C"):
        Readiness(Health(["a.A", "b.B"]), needs)
