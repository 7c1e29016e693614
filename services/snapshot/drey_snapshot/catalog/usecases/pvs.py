"""What single and bulk changes of PVs decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from drey_core.errors import NotFound
from drey_core.selector import Selector
from drey_runtime.waiting import choose_off_loop
from drey_snapshot.catalog.adapters.reading import read_pv, read_tombstones
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.draft import CONTENT, Draft, copy_of, draft_of, drafts_of
from drey_snapshot.catalog.domain.edit import Edit
from drey_snapshot.catalog.usecases.writer import Act, Scene
from drey_snapshot.catalog.view import choose_numbers, index_of

TagPair = tuple[str, str]


def describe_pv(draft: Draft, edit: Edit, names: Iterable[str] = CONTENT) -> Mapping[str, Any]:
    """Fields of a PV for the audit, empty ones left out."""
    out: dict[str, Any] = {"number": draft.number, "name": draft.name}
    for name in names:
        value = getattr(draft, name)
        if name == "tags":
            value = ["/".join(pair) for pair in edit.tags.names(value)]
        elif name == "policy":
            value = policies.to_json(value)
        if value or name == "name":
            out[name] = value
    return out


async def delete_pv(
    scene: Scene, id: str, check: Callable[[Draft], None], encode: Callable[[Draft], bytes]
) -> Act:
    """Make a tombstone; `check` may refuse what is there."""
    before = scene.edit.by_id(id)
    check(before)
    audit_fields = describe_pv(before, scene.edit)
    after = scene.edit.delete_pv(before)
    return Act(encode(after), "pv.delete", f"pvs/{id}", audit_fields)


async def undelete_pv(scene: Scene, id: str, encode: Callable[[Draft], bytes]) -> Act:
    """Bring a tombstone back; a PV that lives is left as it is."""
    pv = await read_pv(scene.conn, id)
    if len(pv) == 0:
        raise NotFound(f"no PV has the id {id}", field="id", metadata={"resource": "pv", "id": id})
    draft = draft_of(pv, 0)
    if draft.delete_time_ns:
        draft = scene.edit.undelete_pv(draft)
    after = describe_pv(draft, scene.edit)
    return Act(encode(draft), "pv.undelete", f"pvs/{id}", None, after)


async def purge_pvs(scene: Scene, selector: Selector, dry_run: bool) -> list[Draft]:
    """Tombstones of all PVs chosen, or in a dry run what would become some; in order of name."""
    rows, _ = await choose_numbers(scene.view, selector)
    drafts = scene.edit.at_rows(rows.tolist())
    if not dry_run:
        for draft in drafts:
            scene.edit.delete_pv(draft)
    return sorted(drafts, key=lambda draft: draft.name)


async def undelete_selected(scene: Scene, selector: Selector, dry_run: bool) -> list[str]:
    """Bring back the tombstones chosen, of several of one name the last; their names."""
    dead = await read_tombstones(scene.conn)
    index = index_of(dead, scene.view.tags)
    selection = await choose_off_loop(
        lambda: index.select_rows(selector), takes_long=selector.takes_long
    )
    latest = sorted(selection.rows.tolist(), key=lambda row: int(dead.delete_time_ns[row]))
    rows = sorted({dead.name[row]: row for row in latest}.values())
    if not dry_run:
        for draft in drafts_of(dead, rows):
            scene.edit.undelete_pv(draft, "selector")
    return [dead.name[row] for row in rows]


async def tag_selected(
    scene: Scene, selector: Selector, add: list[TagPair], remove: list[TagPair]
) -> tuple[int, int]:
    """(PVs chosen, PVs whose tags changed)."""
    rows, _ = await choose_numbers(scene.view, selector)
    if len(rows) == 0:
        return 0, 0
    edit = scene.edit
    added = {edit.tag_number(group, tag) for group, tag in add}
    known_tags = (edit.known_tag(group, tag) for group, tag in remove)
    removed = {number for number in known_tags if number is not None} - added
    changed = 0
    for draft in edit.at_rows(rows.tolist()):
        after = copy_of(draft)
        after.tags = tuple(sorted(added.union(draft.tags) - removed))
        changed += bool(edit.update_pv(draft, after))
    return len(rows), changed
