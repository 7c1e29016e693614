"""Whether a change of the catalog stays within what its caller was granted.

A grant for some PVs only covers a change of a PV that its selector chooses before and after. An
address is what a restore would write to, so a new one has to be covered by itself: names and globs
of the selector are held against it as if it were the name of the PV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drey_core.errors import PermissionDenied
from drey_core.principal import Principal
from drey_core.selector import Selector, SelectorIndex
from drey_runtime.mapping.selector import selector_from_bytes
from drey_snapshot.catalog.domain.changes import CatalogState, Changes
from drey_snapshot.catalog.domain.draft import table_of
from drey_snapshot.catalog.domain.table import I8, Bools, PvTable
from drey_snapshot.catalog.domain.tags import TagBook
from drey_snapshot.catalog.view import CatalogView, index_of

_NEW_TAG = "catalog.tags.create"


def granted_selectors(principal: Principal, permission: str) -> list[Selector] | None:
    """The PVs with which the caller may do it; None: with any."""
    encoded = principal.selectors_for(permission)
    if encoded is None:
        return None
    return [selector_from_bytes(each) for each in encoded]


def require_granted_rows(
    principal: Principal, permission: str, view: CatalogView, rows: I8, doing: str
) -> None:
    """Raise `PermissionDenied` where rows of the catalog are not covered."""
    selectors = granted_selectors(principal, permission)
    if selectors is None:
        return
    covered = _covered_mask(view.selector_index, selectors)
    outside = rows[~covered[rows]]
    if len(outside):
        raise principal.refuse_pvs(doing, [view.table.name[row] for row in outside.tolist()])


def require_granted_changes(
    principal: Principal, permission: str, changes: Changes, before: CatalogState, tags: TagBook
) -> None:
    """Raise `PermissionDenied` where a change reaches beyond the grants. `tags` are those after."""
    selectors = granted_selectors(principal, permission)
    if selectors is None:
        return
    drafts = [*changes.inserted, *changes.updated]
    after = table_of(drafts).merge_changed(changes.added) if drafts else changes.added
    living = before.table.take_rows(
        np.isin(before.table.number, [draft.number for draft in drafts])
    )
    dead = table_of([draft for draft in drafts if draft.delete_time_ns])
    parts = (living, before.tags), (after, tags), (dead, tags)
    outside = [
        table.name[row]
        for table, book in parts
        for row in np.flatnonzero(~_covered_mask(index_of(table, book), selectors)).tolist()
    ]
    outside += _uncovered_addresses(after, living, tags, selectors)
    if outside:
        raise principal.refuse_pvs("editing", list(dict.fromkeys(outside)))
    if (changes.groups or changes.new_tags) and not principal.has_permission(_NEW_TAG):
        name = changes.groups[0].name if changes.groups else changes.new_tags[0][1].name
        raise PermissionDenied(
            f"{name!r} is no tag or group of the catalog yet, and {principal.name} may edit some"
            " PVs only; ask an editor of the whole catalog to make it",
            metadata={"permission": _NEW_TAG, "roles": principal.roles_text},
        )


def _covered_mask(index: SelectorIndex, selectors: Sequence[Selector]) -> Bools:
    covered = np.zeros(len(index), bool)
    for selector in selectors:
        covered |= index.select_rows(selector, allow_unknown=True).mask
    return covered


def _uncovered_addresses(
    after: PvTable, before: PvTable, tags: TagBook, selectors: Sequence[Selector]
) -> list[str]:
    """New addresses that no selector covers by name or glob."""
    explicit = [selector for selector in selectors if selector.names_explicitly]
    uncovered = []
    for name in ("setpoint_address", "readback_address"):
        old = dict(zip(before.number.tolist(), getattr(before, name), strict=True))
        column: list[str] = getattr(after, name)
        new = np.array(
            [
                bool(address) and old.get(number) != address
                for number, address in zip(after.number.tolist(), column, strict=True)
            ],
            bool,
        )
        asked = after.take_rows(new)
        blank = [""] * len(asked)
        # neither its id nor its number says anything of where the address leads
        as_names = replace(
            asked,
            number=np.full(len(asked), -1),
            id=blank,
            name=getattr(asked, name),
            setpoint_address=blank,
            readback_address=blank,
        )
        covered = _covered_mask(index_of(as_names, tags), explicit)
        uncovered += [as_names.name[row] for row in np.flatnonzero(~covered).tolist()]
    return uncovered
