"""Selectors: choosing PVs, by the same rules everywhere; of messages, and of a text of settings."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import InvalidArgument, NotFound, Reason, Unimplemented
from drey_core.ids import parse_uuid
from drey_core.names import other_form
from drey_core.patterns import MAX_CHARACTERS, Patterns
from drey_core.search import SearchIndex
from drey_core.values import I8

MAX_NESTING = 4
"""How many selectors may stand in one another by `excluding`, the outermost counted."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Some tags of one group, by names, case ignored; no tags: any tag of the group."""

    group: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """What `drey.common.v1.Selector` says; see there for the meaning of each field."""

    all: bool = False
    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    globs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tags: tuple[TagFilter, ...] = ()
    scope: str = ""
    excluding: Selector | None = None

    @property
    def takes_long(self) -> bool:
        """Whether choosing may take longer than an event loop should stand still."""
        inner = self.excluding is not None and self.excluding.takes_long
        return bool(self.globs or self.scope or len(self.names) > 1000 or inner)

    @property
    def names_explicitly(self) -> bool:
        """Whether it names PVs, rather than narrowing all of them down."""
        return bool(self.names or self.ids or self.numbers or self.globs or self.scope)

    def validate_selector(self, path: str = "selector") -> None:
        """Refuse a selector that says nothing, contradicts itself or nests too deep.

        Raises `InvalidArgument` with the field: EMPTY_SELECTOR or INVALID_FIELD. An `excluding`
        alone says nothing: it would choose nearly everything without saying so.
        """
        self._validate_part(path, 1)

    def _validate_part(self, path: str, depth: int) -> None:
        if depth > MAX_NESTING:
            raise _invalid_selector(f"{path}: selectors nest deeper than {MAX_NESTING}", path)
        if not (self.all or self.names_explicitly or self.devices or self.tags):
            message = f"{path} says nothing; say `all` for every PV"
            raise _invalid_selector(message, path, Reason.EMPTY_SELECTOR)
        if self.all and self.names_explicitly:
            message = f"{path}: `all` excludes names, ids, numbers, globs and scope"
            raise _invalid_selector(message, f"{path}.all")
        for i, glob in enumerate(self.globs):
            if not glob:
                field_path = f"{path}.globs[{i}]"
                raise _invalid_selector(f"{field_path} is empty and matches nothing", field_path)
        for i, tag in enumerate(self.tags):
            if not tag.group:
                raise _invalid_selector(
                    f"{path}.tags[{i}] names no group", f"{path}.tags[{i}].group"
                )
        if sum(map(len, self.globs)) > MAX_CHARACTERS:
            field_path = f"{path}.globs"
            raise InvalidArgument(
                f"{field_path}: have more than {MAX_CHARACTERS} characters together; "
                "make several calls, or choose by device or by tag",
                reason=Reason.TOO_MANY,
                field=field_path,
                metadata={"field": field_path, "limit": str(MAX_CHARACTERS)},
            )
        if self.excluding is not None:
            self.excluding._validate_part(f"{path}.excluding", depth + 1)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selector chose among n PVs: `mask` of shape (n,), and what nothing has."""

    mask: Mask
    not_found: list[str] = field(default_factory=list)

    @property
    def rows(self) -> I8:
        """Indices of the PVs chosen, ascending."""
        return np.flatnonzero(self.mask)

    @property
    def count(self) -> int:
        """How many PVs were chosen."""
        return int(np.count_nonzero(self.mask))


class Link(NamedTuple):
    """The PV that a name stands for which is not its own: by its name in another form (role 0), by
    the address of its setpoint (1) or of its readback (2)."""

    row: int
    role: int


TagMembers = Mapping[str, Mapping[str, I8]]
"""Group name → tag name → indices of the PVs that carry it."""

ScopeOf = Callable[[str], "Selector | None"]
"""A saved scope by id or name; None where there is none."""


class SelectorIndex:
    """The living PVs of one version of the catalog, indexed for selectors.

    All columns have n entries, one a PV; an empty address or device means that it has none.
    Immutable, and its lookups are built on first use.
    """

    def __init__(
        self,
        *,
        numbers: I8,
        names: Sequence[str],
        setpoint_addresses: Sequence[str],
        readback_addresses: Sequence[str],
        ids: Sequence[str] = (),
        devices: Sequence[str] = (),
        descriptions: Sequence[str] = (),
        tags: TagMembers | None = None,
        scope_of: ScopeOf | None = None,
    ) -> None:
        self.numbers = numbers
        self.names = names
        self._addresses = (setpoint_addresses, readback_addresses)
        self._ids = ids
        self._devices = devices
        self._descriptions = descriptions
        self._tags = {
            group.casefold(): {tag.casefold(): rows for tag, rows in members.items()}
            for group, members in (tags or {}).items()
        }
        self._scope_of = scope_of

    def __len__(self) -> int:
        return len(self.names)

    def select_rows(
        self, selector: Selector, *, allow_unknown: bool = False, path: str = "selector"
    ) -> Selection:
        """The PVs that a selector chooses, duplicates collapsed.

        An unknown name, id, number, tag group or tag raises `NotFound`, with all of them in the
        text up to ten, or is listed in `not_found` with `allow_unknown`. Devices and globs that
        nothing matches are no error. Raises `InvalidArgument` as `Selector.validate_selector` and
        for malformed ids, `NotFound` for an unknown scope.
        """
        selector.validate_selector(path)
        missing: dict[str, str] = {}
        mask = self._choose_mask(selector, path, missing, 1)
        if missing and not allow_unknown:
            raise _not_found(missing)
        return Selection(mask, list(missing))

    def search_mask(self, text: str) -> Mask:
        """Which PVs have all words of `text` in name, device or description; see `SearchIndex`."""
        return self._search_index.matching_mask(text)

    def _choose_mask(
        self, selector: Selector, path: str, missing: dict[str, str], depth: int
    ) -> Mask:
        if selector.names_explicitly:
            mask = np.zeros(len(self), bool)
            self._choose_names(selector.names, f"{path}.names", mask, missing)
            self._choose_ids(selector.ids, f"{path}.ids", mask, missing)
            self._choose_numbers(selector.numbers, f"{path}.numbers", mask, missing)
            if selector.globs:
                mask[self._glob_rows(selector.globs)] = True
            if selector.scope:
                mask |= self._scope_mask(selector.scope, f"{path}.scope", missing, depth)
        else:
            mask = np.ones(len(self), bool)
        if selector.devices:
            mask &= self._device_mask(selector.devices)
        for i, tags in enumerate(selector.tags):
            mask &= self._tag_mask(tags, f"{path}.tags[{i}]", missing)
        if selector.excluding is not None:
            mask &= ~self._choose_mask(selector.excluding, f"{path}.excluding", missing, depth)
        return mask

    def _choose_names(
        self, names: Sequence[str], path: str, mask: Mask, missing: dict[str, str]
    ) -> None:
        if not names:
            return
        found_names = np.zeros(len(names), bool)
        for lookup, more in self._name_lookups:
            rows = np.fromiter(map(lookup.get, names, repeat(-1)), np.int64, len(names))
            known_names = rows >= 0
            mask[rows[known_names]] = True
            found_names |= known_names
            if more:
                for name in more.keys() & set(names):
                    mask[more[name]] = True
        for index in np.flatnonzero(~found_names).tolist():
            links = self._rows_called(other_form(names[index]))
            mask[[link.row for link in links]] = True
            if not links:
                missing.setdefault(names[index], f"{path}[{index}]")

    def links(self, names: Sequence[str]) -> dict[str, list[Link]]:
        """Which PVs are meant by names that are not the PVs' own; those of nothing are left out."""
        links: dict[str, list[Link]] = {}
        for name in names:
            hits = self._rows_called(name) or self._rows_called(other_form(name))
            others = [link for link in hits if self.names[link.row] != name]
            if others:
                links[name] = others
        return links

    def _rows_called(self, name: str) -> list[Link]:
        """PVs of this name, or with a channel of this address; by name before by address."""
        links: list[Link] = []
        for role, (lookup, more) in enumerate(self._name_lookups):
            row = lookup.get(name, -1)
            rows = more.get(name) or ([row] if row >= 0 else [])
            seen = {link.row for link in links if link.role == 0}
            links += [Link(row, role) for row in rows if row not in seen]
        return links

    def _choose_ids(
        self, ids: Sequence[str], path: str, mask: Mask, missing: dict[str, str]
    ) -> None:
        if not ids:
            return
        rows = np.fromiter(map(self._id_rows.get, ids, repeat(-1)), np.int64, len(ids))
        for index in np.flatnonzero(rows < 0).tolist():
            canonical = parse_uuid(ids[index], f"{path}[{index}]")
            rows[index] = self._id_rows.get(canonical, -1)
            if rows[index] < 0:
                missing.setdefault(ids[index], f"{path}[{index}]")
        mask[rows[rows >= 0]] = True

    def _choose_numbers(
        self, numbers: Sequence[int], path: str, mask: Mask, missing: dict[str, str]
    ) -> None:
        if not numbers:
            return
        rows = np.fromiter(map(self._number_rows.get, numbers, repeat(-1)), np.int64, len(numbers))
        mask[rows[rows >= 0]] = True
        for index in np.flatnonzero(rows < 0).tolist():
            missing.setdefault(str(numbers[index]), f"{path}[{index}]")

    def _scope_mask(self, scope: str, path: str, missing: dict[str, str], depth: int) -> Mask:
        if self._scope_of is None:
            raise Unimplemented(f"{path}: saved scopes are not built yet", field=path)
        if depth >= MAX_NESTING:
            raise _invalid_selector(f"{path}: scopes nest deeper than {MAX_NESTING}", path)
        inner = self._scope_of(scope)
        if inner is None:
            raise NotFound(
                f"no saved scope is called {scope!r}",
                field=path,
                metadata={"resource": "scope", "id": scope},
            )
        inner.validate_selector(path)
        return self._choose_mask(inner, path, missing, depth + 1)

    def _device_mask(self, devices: Sequence[str]) -> Mask:
        mask = np.zeros(len(self), bool)
        for device in devices:
            mask[self._device_rows.get(device, [])] = True
        return mask

    def _tag_mask(self, tags: TagFilter, path: str, missing: dict[str, str]) -> Mask:
        mask = np.zeros(len(self), bool)
        members = self._tags.get(tags.group.casefold())
        if members is None:
            missing.setdefault(tags.group, f"{path}.group")
            return mask
        for i, tag in enumerate(tags.tags or members):
            rows = members.get(tag.casefold())
            if rows is None:
                missing.setdefault(f"{tags.group}/{tag}", f"{path}.tags[{i}]")
            else:
                mask[rows] = True
        return mask

    def _glob_rows(self, globs: Sequence[str]) -> I8:
        """Rows whose name matches one; only names with the literal prefix of one are looked at."""
        order, ordered = self._by_name
        asked = np.zeros(len(ordered), bool)
        for glob in globs:
            prefix = re.split(r"[*?\[]", glob, maxsplit=1)[0]
            first = bisect_left(ordered, prefix) if prefix else 0
            # No character sorts after U+10FFFF, so this ends the range of the prefix.
            last = bisect_left(ordered, prefix + "\U0010ffff" * 2) if prefix else len(ordered)
            asked[first:last] = True
        places = np.flatnonzero(asked)
        matched = Patterns(globs).any_match(ordered[place] for place in places.tolist())
        rows: I8 = order[places[matched]]
        return rows

    # --- lookups, built on first use ---

    @cached_property
    def _search_index(self) -> SearchIndex:
        blank = [""] * len(self)
        return SearchIndex(self.names, self._devices or blank, self._descriptions or blank)

    @cached_property
    def _name_lookups(self) -> list[tuple[dict[str, int], dict[str, list[int]]]]:
        return [_lookup_tables(column) for column in (self.names, *self._addresses)]

    @cached_property
    def _id_rows(self) -> dict[str, int]:
        return dict(zip(self._ids, range(len(self._ids)), strict=True))

    @cached_property
    def _number_rows(self) -> dict[int, int]:
        return dict(zip(self.numbers.tolist(), range(len(self.numbers)), strict=True))

    @cached_property
    def _device_rows(self) -> dict[str, list[int]]:
        return _rows_of(self._devices)

    @cached_property
    def _by_name(self) -> tuple[I8, list[str]]:
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        return np.array(order, np.int64), [self.names[row] for row in order]


def _lookup_tables(column: Sequence[str]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """(text → a row, text → all rows where it has several), empty texts left out."""
    single = dict(zip(column, range(len(column)), strict=True))
    several: dict[str, list[int]] = {}
    if len(single) < len(column):
        several = {text: rows for text, rows in _rows_of(column).items() if len(rows) > 1 and text}
    single.pop("", None)
    return single, several


def _rows_of(column: Iterable[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(column):
        rows.setdefault(text, []).append(row)
    return rows


def _invalid_selector(
    message: str, path: str, reason: Reason = Reason.INVALID_FIELD
) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field=path, metadata={"field": path})


def _not_found(missing: Mapping[str, str]) -> NotFound:
    first = next(iter(missing))
    shown = ", ".join(list(missing)[:10])
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    return NotFound(
        f"nothing in the catalog is called {shown}{more}",
        field=missing[first],
        metadata={"resource": "pv", "id": first, "missing": str(len(missing))},
    )


def parse_selectors(text: str) -> tuple[Selector, ...]:
    """Selectors that together choose what the text of a setting says; empty: nothing.

    A list by comma of patterns over names, `tag:GROUP`, `tag:GROUP=TAG`, `device:NAME` and
    `scope:NAME`; `*` is all. Raises `InvalidArgument`.
    """
    globs: list[str] = []
    devices: list[str] = []
    selectors: list[Selector] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        kind, _, name = entry.partition(":")
        if kind not in ("tag", "device", "scope"):
            globs.append(entry)
        elif not name:
            raise InvalidArgument(f"{entry!r} names nothing: write {kind}:NAME")
        elif kind == "device":
            devices.append(name)
        elif kind == "scope":
            selectors.append(Selector(scope=name))
        else:
            group, _, tag = name.partition("=")
            selectors.append(Selector(tags=(TagFilter(group, (tag,) if tag else ()),)))
    if "*" in globs:
        return (Selector(all=True),)
    if globs:
        selectors.append(Selector(globs=tuple(globs)))
    if devices:
        selectors.append(Selector(devices=tuple(devices)))
    for selector in selectors:
        selector.validate_selector()
    return tuple(selectors)
