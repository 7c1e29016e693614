"""A PV on the operators' page: its history, its edit, its policy."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

from playwright.async_api import FilePayload, expect

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey.policy.v1 import policy_service_pb2, policy_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from tests.e2e.conftest import PVS, Running
from tests.e2e.page_calls import (
    await_value,
    go_tab,
    open_page,
    own_pv,
    purged,
    row_of,
    search_words,
    shoot,
)


def _take(running: Running, name: str) -> snapshot_pb2.Snapshot:
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec={"selector": {"names": [name]}, "gates": {"any_missing": {}}},
        request_id=str(uuid4()),
    )
    return running.snapshots.TakeSnapshot(request, **running.call()).snapshot


def _readdress(running: Running, pv_id: str, address: str) -> None:
    request = catalog_service_pb2.UpdatePvRequest(
        pv={"id": pv_id, "setpoint": {"address": address}},
        update_mask={"paths": ["setpoint.address"]},
    )
    running.catalog.UpdatePv(request, **running.call())


def test_the_history_of_a_pv_tells_where_it_was_missing(running: Running) -> None:
    """Three snapshots have it, in the second it was missing; the newest is opened."""
    name = f"PAGE:{uuid4().hex[:8]}"
    with purged(running, name):
        pv = own_pv(running, name)
        oldest = _take(running, name)
        _readdress(running, pv.id, f"NOBODY:{name}")
        await_value(running, name, comes=False)
        _take(running, name)
        _readdress(running, pv.id, pv.setpoint.address)
        await_value(running, name)
        _take(running, name)

        async def scenario() -> None:
            async with open_page(running) as page:
                await go_tab(page, "p")
                await expect(page.get_by_role("status")).to_have_text(f"{PVS + 1} of {PVS + 1} PVs")
                await search_words(page, name)
                await row_of(page, name).click()
                await page.keyboard.press("h")
                history = page.get_by_role("region", name=f"History of {name}")
                await expect(history).to_contain_text(
                    "3 snapshots with it, it was missing in 1 of them: gaps"
                )
                await expect(history.locator(".plot canvas")).to_have_count(1)
                rows = history.get_by_role("grid").locator(".grid-row")
                await expect(rows).to_have_count(3)
                await expect(rows.nth(1)).to_contain_text("never found")
                await shoot(page, "history")
                # a new one appears by itself
                _take(running, name)
                await expect(history).to_contain_text("4 snapshots with it")
                await expect(rows).to_have_count(4)
                # by the keyboard to the oldest of them
                await history.get_by_role("grid").press("End")
                await page.keyboard.press("Enter")
                await expect(page.locator("aside")).to_contain_text(oldest.digest)

        running.do(scenario())


def _pv_of(running: Running, name: str) -> catalog_pb2.Pv:
    request = catalog_service_pb2.GetPvRequest(name=name)
    return running.catalog.GetPv(request, **running.call()).pv


def test_a_pv_is_edited_and_nobodys_change_is_lost(running: Running) -> None:
    """A refusal stands at its field; who was slower is told, and keeps what both have typed."""
    name = f"PAGE:{uuid4().hex[:8]}"
    with purged(running, name):
        pv = own_pv(running, name)
        listed = catalog_service_pb2.ListPvsRequest(selector={"globs": ["QUAD:*"]}, page_size=1)
        tag = running.catalog.ListPvs(listed, **running.call()).pvs[0].tags[0]

        async def scenario() -> None:
            async with open_page(running) as page:
                await page.goto(f"{running.stack.web}/#/pvs/{pv.number}")
                details = page.get_by_role("complementary", name=f"Details of {name}")
                await details.get_by_role("button", name="Edit …").press("Enter")
                form = page.get_by_role("form", name=f"Edit {name}")
                await form.get_by_label("Description").fill("Größe, été, 夜班")
                await form.get_by_label("read-only").check()
                tolerance = form.get_by_label("Absolute")
                await tolerance.fill("-0.5")
                await form.get_by_role("button", name="Save").click()
                await expect(form.get_by_role("alert")).to_contain_text("INVALID_FIELD")
                await expect(tolerance).to_have_attribute("aria-invalid", "true")
                await expect(tolerance).to_be_focused()
                await shoot(page, "edit")

                request = catalog_service_pb2.UpdatePvRequest(
                    pv={"id": pv.id, "description": "theirs", "device": "Theirs"},
                    update_mask={"paths": ["description", "device"]},
                )
                running.catalog.UpdatePv(request, **running.call())
                await tolerance.fill("0.5")
                await form.get_by_role("button", name="Save").click()
                await expect(form).to_contain_text("Somebody else has changed this PV")
                assert _pv_of(running, name).description == "theirs"
                await form.get_by_role("button", name="Take theirs, and keep what I typed").click()
                await expect(form.get_by_role("status")).to_contain_text("description: theirs")
                await expect(form.get_by_label("Device")).to_have_value("Theirs")
                await form.get_by_label("Tags").fill(f"{tag.group}: {tag.tag}")
                await form.get_by_role("button", name="Save").click()
                await expect(form).to_have_count(0)
                await expect(details).to_contain_text("Größe, été, 夜班")
                await expect(details).to_contain_text(f"{tag.group}: {tag.tag}")
                await expect(details).to_contain_text("never write it (read-only)")

        running.do(scenario())
        saved = _pv_of(running, name)
        assert (saved.description, saved.device) == ("Größe, été, 夜班", "Theirs")
        assert saved.setpoint.tolerance.absolute == 0.5
        assert saved.setpoint.address == pv.setpoint.address
        assert list(saved.tags) == [tag]


def test_who_may_not_edit_is_told_why(running: Running) -> None:
    async def scenario() -> None:
        async with open_page(running, role="VIEWER") as page:
            await go_tab(page, "p")
            await page.locator(".grid-row").first.click()
            edit = page.locator("aside").get_by_role("button", name="Edit …")
            await expect(edit).to_be_disabled()
            await expect(edit).to_have_attribute("title", re.compile("takes the role editor"))

    running.do(scenario())


def test_policies_are_listed_and_a_pv_tells_who_says_what(running: Running) -> None:
    """Of a PV's parts one comes from itself, one from its device, the rest from Drey."""
    name = f"PAGE:{uuid4().hex[:8]}"
    policies = policy_service_pb2_grpc.PolicyServiceStub(running.channel)
    with purged(running, name):
        pv = own_pv(running, name, ramp_step=0.5)
        request = catalog_service_pb2.UpdatePvRequest(
            pv={"id": pv.id, "device": name}, update_mask={"paths": ["device"]}
        )
        running.catalog.UpdatePv(request, **running.call())
        policy = {"device": name, "policy": {"stage": 4}, "comment": "late"}
        create = policy_service_pb2.CreatePolicyRequest(policy=policy)
        made = policies.CreatePolicy(create, **running.call()).policy

        async def scenario() -> None:
            async with open_page(running, role="VIEWER") as page:
                await go_tab(page, "l")
                await search_words(page, name)
                row = page.get_by_role("row").filter(has_text=f"device {name}")
                await expect(row).to_contain_text("Stage 4")
                await expect(row).to_contain_text("late")
                await page.goto(f"{running.stack.web}/#/pvs/{pv.number}")
                details = page.get_by_role("complementary", name=f"Details of {name}")
                await details.get_by_role("button", name="How a restore treats it").click()
                parts = details.get_by_role("region", name="How a restore treats it")
                stage = parts.get_by_role("row").filter(has_text="Stage")
                await expect(stage).to_contain_text(f"its device {name}")
                step = parts.get_by_role("row").filter(has_text="Step at most")
                await expect(step).to_contain_text("the PV itself")
                done = parts.get_by_role("row").filter(has_text="done when")
                await expect(done).to_contain_text("Drey")

        try:
            running.do(scenario())
        finally:
            delete = policy_service_pb2.DeletePolicyRequest(id=made.id)
            policies.DeletePolicy(delete, **running.call())


def _tag_policy(running: Running, group: str, tag: str) -> str:
    """The id of the policy of a tag."""
    policies = policy_service_pb2_grpc.PolicyServiceStub(running.channel)
    request = policy_service_pb2.ListPoliciesRequest(tag={"group": group, "tag": tag})
    (found,) = policies.ListPolicies(request, **running.call()).policies
    return found.id


def test_a_policy_is_set_edited_and_deleted(running: Running) -> None:
    """One that contradicts what a PV says is refused at the part that is at fault."""
    name = f"PAGE:{uuid4().hex[:8]}"
    group = f"Gruppe {name[5:]}"
    with purged(running, name):
        pv = own_pv(running, name)
        request = catalog_service_pb2.UpdatePvRequest(
            pv={
                "id": pv.id,
                "tags": [{"group": group, "tag": "Größe: 夜班"}],
                "restore_policy": {"completion": catalog_pb2.COMPLETION_SENT},
            },
            update_mask={"paths": ["tags", "restore_policy"]},
        )
        running.catalog.UpdatePv(request, **running.call())

        async def scenario() -> None:
            async with open_page(running) as page:
                await go_tab(page, "l")
                await page.get_by_role("button", name="Set a policy …").press("Enter")
                form = page.get_by_role("form", name="Set a policy")
                await form.get_by_label("Of the PVs of a").select_option("tag")
                await form.get_by_label("Tag", exact=True).fill(group)
                await form.get_by_role("button", name="Set it").click()
                tag = form.get_by_label("Tag", exact=True)
                await expect(tag).to_have_attribute("aria-invalid", "true")
                await tag.fill(f"{group}: Größe: 夜班")
                await form.get_by_label("Why").fill("für die Nachtschicht")
                step = form.get_by_label("Step at most")
                await step.fill("0.5")
                await form.get_by_role("button", name="Set it").click()
                alert = form.get_by_role("alert")
                await expect(alert).to_contain_text("POLICY_CONTRADICTION")
                await expect(alert).to_contain_text(name)
                await expect(step).to_have_attribute("aria-invalid", "true")
                await expect(step).to_be_focused()
                await shoot(page, "policy")
                await step.fill("")
                await form.get_by_label("Late after seconds").fill("1.5")
                await form.get_by_label("Never below").fill("0")
                await form.get_by_role("button", name="Set it").press("Enter")
                details = page.get_by_role("complementary", name="The chosen policy")
                await expect(details).to_contain_text("1.5 s")
                await expect(details).to_contain_text("0 …")

                await details.get_by_role("button", name="Edit …").click()
                await details.get_by_label("Stage").fill("3")
                theirs = policy_service_pb2.UpdatePolicyRequest(
                    policy={
                        "id": _tag_policy(running, group, "Größe: 夜班"),
                        "comment": "theirs",
                    },
                    update_mask={"paths": ["comment"]},
                )
                policies.UpdatePolicy(theirs, **running.call())
                await details.get_by_role("button", name="Save").click()
                await expect(details).to_contain_text("Somebody else has changed this policy")
                await details.get_by_role("button", name="Take theirs").click()
                await expect(details.get_by_label("Why")).to_have_value("theirs")
                await details.get_by_role("button", name="Save").click()
                row = page.get_by_role("row").filter(has_text=group)
                await expect(row).to_contain_text("Stage 3")
                await expect(row).to_contain_text("theirs")

                await details.get_by_role("button", name="Delete …").click()
                await details.get_by_role("button", name="Delete it now, for 1 PV").click()
                await expect(row).to_have_count(0)

        policies = policy_service_pb2_grpc.PolicyServiceStub(running.channel)
        running.do(scenario())
    groups = running.catalog.ListTagGroups(
        catalog_service_pb2.ListTagGroupsRequest(page_size=1000), **running.call()
    )
    (own,) = [each.id for each in groups.tag_groups if each.name == group]
    drop = catalog_service_pb2.DeleteTagGroupRequest(id=own, force=True)
    running.catalog.DeleteTagGroup(drop, **running.call())


def _file(name: str, content: str) -> FilePayload:
    return {"name": name, "mimeType": "text/csv", "buffer": content.encode()}


def test_a_file_of_pvs_is_imported_after_its_plan_was_seen(
    running: Running, tmp_path: Path
) -> None:
    """A refused line is told by its number; what was changed comes back by the file from before."""
    name = f"PAGE:{uuid4().hex[:8]}"
    added = f"{name}:NEW"
    head = "Name,Setpoint,Description,Abs Tolerance\n"
    with purged(running, name):
        address = own_pv(running, name).setpoint.address
        changed = f'{name},{address},"Größe, été",0.5\n'
        refused = f"{added},{address},neu,a lot\n"
        good = f"{added},{address},夜班,0.25\n"

        async def scenario() -> None:
            async with open_page(running, role="EDITOR") as page:
                await go_tab(page, "p")
                await page.get_by_role("button", name="Import …").press("Enter")
                part = page.get_by_role("region", name="Import PVs")
                file = part.get_by_label("File")
                apply = part.get_by_role("button", name="Import it")
                await file.set_input_files(_file("new.csv", head + changed + refused))
                await expect(part.get_by_role("alert")).to_contain_text("1 refused")
                line = part.locator(".grid-row").filter(has_text="refused")
                await expect(line).to_contain_text("Abs Tolerance")
                await expect(line.locator("> *").first).to_have_text("3")
                await expect(part.get_by_role("button", name="nothing to import")).to_be_disabled()

                await file.set_input_files(_file("new.csv", head + changed + good))
                await expect(part.get_by_role("status")).to_contain_text("1 added, 1 changed")
                await expect(part.locator(".grid-row")).to_have_count(2)
                await shoot(page, "import")
                assert _pv_of(running, name).description == ""
                await part.get_by_label("leave PVs that are there").check()
                await expect(part.get_by_role("status")).to_contain_text("1 added, 0 changed")
                await part.get_by_label("leave PVs that are there").uncheck()
                await expect(apply).to_contain_text("1 added, 1 changed")
                await apply.click()
                await expect(part.get_by_role("status")).to_contain_text("Imported")
                assert _pv_of(running, name).description == "Größe, été"
                assert _pv_of(running, added).setpoint.tolerance.absolute == 0.25

                async with page.expect_download() as downloading:
                    await part.get_by_role("button", name="Save it as a file").click()
                path = tmp_path / "before.csv"
                await (await downloading.value).save_as(path)
                await file.set_input_files(path)
                await expect(apply).to_contain_text("0 added, 1 changed")
                await apply.click()
                await expect(part.get_by_role("status")).to_contain_text("Imported")
                assert _pv_of(running, name).description == ""
                assert _pv_of(running, added).description == "夜班"

                await part.get_by_role("button", name="Back to the PVs").click()
                await search_words(page, added)
                await expect(row_of(page, added)).to_contain_text("夜班")

        running.do(scenario())
