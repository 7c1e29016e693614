"""The catalog as of one version: immutable, shared by all readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drey_core.directory import Directory
from drey_core.page_storage import store_text
from drey_core.pages import hash_bytes
from drey_core.selector import Selector, SelectorIndex
from drey_runtime.directory_codec import encode_catalog
from drey_runtime.waiting import choose_off_loop
from drey_snapshot.catalog.domain.default_policies import (
    NO_POLICIES,
    EffectivePolicies,
    PolicyBook,
    effective_policies,
)
from drey_snapshot.catalog.domain.pages import build_pages, directory_of, pages_of
from drey_snapshot.catalog.domain.table import I8, PvTable
from drey_snapshot.catalog.domain.tags import TagBook


@dataclass(frozen=True)
class CatalogView:
    """The living PVs in columns, and their pages.

    Rows of `table` and of `directory` are the same, ordered by PV number. `stored_pages` are the
    stored forms of encoded `CatalogPage` by number, all that ever held a channel, so that whoever
    has an older version learns that one is empty now, and `page_hashes` those of what is encoded;
    `page_versions` says with which version each last changed as far as this process knows, which is
    never too low.
    """

    version: int
    table: PvTable
    tags: TagBook
    policies: PolicyBook
    directory: Directory
    stored_pages: dict[int, bytes]
    page_hashes: dict[int, bytes]
    page_versions: dict[int, int]

    @classmethod
    def empty_view(cls) -> CatalogView:
        """Nothing at all, version 0."""
        table = PvTable.empty_table()
        return cls(0, table, TagBook(), NO_POLICIES, directory_of(0, table, {}), {}, {}, {})

    def advance_view(
        self,
        version: int,
        changed: PvTable,
        tags: TagBook,
        pages: Iterable[int] = (),
        policies: PolicyBook | None = None,
    ) -> CatalogView:
        """This view with changed (and deleted) PVs, and the pages that they touch, renewed.

        `pages` are built beside these, empty where nothing is on them. `policies`: None: as before.
        """
        table = self.table.merge_changed(changed)
        before = self.table.take_rows(np.isin(self.table.number, changed.number))
        touched = {*pages_of(before).tolist(), *pages_of(changed).tolist(), *pages}
        built = build_pages(table, sorted(touched))
        encoded = {number: encode_catalog(page) for number, page in built.items()}
        hashes = {number: hash_bytes(raw) for number, raw in encoded.items()}
        stored = {number: store_text(raw) for number, raw in encoded.items()}
        new = {n: version for n, h in hashes.items() if self.page_hashes.get(n) != h}
        all_pages = {**self.directory.pages, **built}
        return CatalogView(
            version=version,
            table=table,
            tags=tags,
            policies=self.policies if policies is None else policies,
            directory=directory_of(version, table, all_pages),
            stored_pages={**self.stored_pages, **stored},
            page_hashes={**self.page_hashes, **hashes},
            page_versions={**self.page_versions, **new},
        )

    def select_numbers(
        self, selector: Selector, allow_unknown: bool = False, path: str = "selector"
    ) -> tuple[I8, list[str]]:
        """(rows chosen, ascending; what nothing has). Errors as `SelectorIndex.select_rows`."""
        selection = self.selector_index.select_rows(
            selector, allow_unknown=allow_unknown, path=path
        )
        return selection.rows, selection.not_found

    @cached_property
    def selector_index(self) -> SelectorIndex:
        """The view indexed for selectors and for search."""
        return index_of(self.table, self.tags)

    @cached_property
    def row_by_name(self) -> dict[str, int]:
        """Row of each living PV by name."""
        return dict(zip(self.table.name, self._row_numbers, strict=True))

    @cached_property
    def row_by_id(self) -> dict[str, int]:
        """Row of each living PV by id."""
        return dict(zip(self.table.id, self._row_numbers, strict=True))

    @cached_property
    def _row_numbers(self) -> list[int]:
        """Objects that both dictionaries of rows have in common."""
        return list(range(len(self.table)))

    @cached_property
    def name_order(self) -> I8:
        """Rows in order of name, by code point."""
        names = self.table.name
        return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)

    @cached_property
    def tag_counts(self) -> dict[int, int]:
        """Living PVs by number of tag."""
        return {number: len(rows) for number, rows in tag_rows(self.table).items()}

    @cached_property
    def effective_policies(self) -> EffectivePolicies:
        """What is said of how living PVs are restored."""
        return effective_policies(self.table, self.tags, self.policies)

    @cached_property
    def device_counts(self) -> dict[str, int]:
        """Living PVs by device."""
        return count_devices(self.table.device)


def count_devices(devices: Iterable[str]) -> dict[str, int]:
    """How many PVs give each device; those that give none are left out."""
    counts = Counter(devices)
    counts.pop("", None)
    return counts


async def choose_numbers(
    view: CatalogView, selector: Selector, allow_unknown: bool = False
) -> tuple[I8, list[str]]:
    """As `CatalogView.select_numbers`, beside the event loop where it takes long."""
    return await choose_off_loop(
        lambda: view.select_numbers(selector, allow_unknown), takes_long=selector.takes_long
    )


def tag_rows(table: PvTable) -> dict[int, list[int]]:
    """Rows of the PVs that carry each tag, by number of tag."""
    rows: dict[int, list[int]] = {}
    for row, carried in enumerate(table.tags):
        for number in carried:
            rows.setdefault(number, []).append(row)
    return rows


def index_of(table: PvTable, tags: TagBook) -> SelectorIndex:
    """Any columns of PVs indexed for selectors and for search."""
    carried = tag_rows(table)
    members = {
        group.name: {
            tag.name: np.array(carried.get(tag.number, ()), np.int64) for tag in group.tags
        }
        for group in tags.groups
    }
    return SelectorIndex(
        numbers=table.number,
        names=table.name,
        setpoint_addresses=table.setpoint_address,
        readback_addresses=table.readback_address,
        ids=table.id,
        devices=table.device,
        descriptions=table.description,
        tags=members,
    )
