"""A plan with its rules on the operators' page: edits, guards, gates, rollback."""

from __future__ import annotations

import re
from uuid import uuid4

from playwright.async_api import Locator, expect

from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from tests.e2e.conftest import Running
from tests.e2e.page_calls import open_page, own_pv, purged, shoot


async def _is_refused_at(form: Locator, field: Locator, words: str) -> None:
    """The refusal stands at the field and nowhere else, and the keyboard is there."""
    await expect(form.get_by_role("alert")).to_have_count(1)
    await expect(form.get_by_role("alert")).to_contain_text(words)
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_be_focused()


def test_a_plan_is_made_with_rules_and_errors_stand_at_their_fields(running: Running) -> None:
    """What is refused is mended field by field; the rules are seen before it is executed."""
    name = f"PAGE:{uuid4().hex[:8]}"
    with purged(running, name):
        own_pv(running, name)
        snapshot = running.take("to plan with rules")

        async def scenario() -> None:
            async with open_page(running) as page:
                await page.goto(f"{running.stack.web}/#/restore/new/{snapshot.id}/{name}")
                form = page.get_by_role("form", name="Plan a restore")
                make = form.get_by_role("button", name="Make the plan")
                await form.get_by_role("button", name="+ Edit a value").press("Enter")
                await expect(form.get_by_label("PVs")).to_have_value(name)
                await form.get_by_role("combobox", name="get").select_option("offset")
                await form.get_by_role("button", name="+ Add a guard").click()
                condition = form.get_by_label("Condition")
                await condition.fill('pv["NOBODY"] < 1')
                await form.get_by_role("button", name="+ Add a gate").click()
                await form.get_by_label("Writes", exact=True).fill("-1")
                await form.get_by_label("when a guard fails").check()

                await make.click()
                number = form.get_by_label("Number")
                await _is_refused_at(form, number, "By how much?")
                await number.fill("0.125")
                await make.click()
                gate = form.get_by_label("Writes", exact=True)
                await _is_refused_at(form, gate, "is negative")
                await gate.fill("0")
                await make.click()
                await _is_refused_at(form, condition, "there is no PV NOBODY")
                await shoot(page, "plan-rules")
                await condition.fill(f'pv["{name}"] < 1000')
                await form.get_by_label("What for").fill("not beyond")
                await make.click()

                rules = page.get_by_role("region", name="Rules of the plan")
                await expect(rules).to_contain_text(f"{name}: the stored value × 1 + 0.125")
                await expect(rules).to_contain_text(f'pv["{name}"] < 1000 (not beyond)')
                await expect(rules).to_contain_text("at most 0 writes not verified")
                await expect(rules).to_contain_text("when a guard fails")
                await expect(rules).to_contain_text("1 PV of the plan")

                await page.get_by_role("button", name="Execute …").click()
                last = page.get_by_role("form", name="Execute the plan")
                unreachable = last.get_by_label("PVs that may be unreachable")
                await unreachable.fill("-1")
                write = page.get_by_role("button", name=re.compile("^Write .* now$"))
                await write.click()
                await _is_refused_at(last, unreachable, "is negative")
                await unreachable.fill("0")
                await write.click()
                restore = page.get_by_role("region", name="The restore")
                await expect(restore).to_contain_text("✓ 1 verified")

        running.do(scenario())
        stub = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
        listed = stub.ListPlans(restore_service_pb2.ListPlansRequest(page_size=5), **running.call())
        spec = next(plan.spec for plan in listed.plans if name in plan.spec.selector.names)
        assert spec.rollback == restore_pb2.Rollback(on_guard=True)
        assert [gate.max_failed for gate in spec.gates] == [0]
