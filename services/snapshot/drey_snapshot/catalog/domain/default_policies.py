"""Policies by device and by tag, and what holds for all PVs with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from drey_core.errors import FailedPrecondition, Reason
from drey_core.pv_table import NO_POLICY, Policy
from drey_snapshot.catalog.domain.policy import (
    Effective,
    PolicySpeaker,
    Said,
    SpeakerKind,
    effective_policy,
    part_at_fault,
)
from drey_snapshot.catalog.domain.table import I8, PvTable
from drey_snapshot.catalog.domain.tags import TagBook

_NAMED = 3
"""PVs that a refusal names."""


@dataclass(frozen=True, slots=True)
class DefaultPolicy:
    """What holds for the PVs of a device, or of a tag by its number (0: of a device)."""

    id: str
    device: str
    tag: int
    policy: Policy
    comment: str
    principal: str
    role: str
    version: int
    create_time_ns: int
    update_time_ns: int

    @property
    def etag(self) -> str:
        """Changes with every change of it."""
        return f"{self.version:x}"

    def subject_name(self, tags: TagBook) -> str:
        """Whose PVs, for people: a device, or group/tag."""
        group, tag = tags.by_number.get(self.tag, (None, None))
        return self.device if group is None or tag is None else f"{group.name}/{tag.name}"


@dataclass(frozen=True)
class PolicyBook:
    """All policies by device and by tag. Immutable."""

    version: int = 0
    listed: tuple[DefaultPolicy, ...] = field(default=())

    @cached_property
    def by_id(self) -> dict[str, DefaultPolicy]:
        return {each.id: each for each in self.listed}

    @cached_property
    def by_device(self) -> dict[str, DefaultPolicy]:
        """Policies of devices, by name."""
        return {each.device: each for each in self.listed if not each.tag}

    @cached_property
    def by_tag(self) -> dict[int, DefaultPolicy]:
        """Policies of tags, by number of the tag."""
        return {each.tag: each for each in self.listed if each.tag}

    def with_policy(self, policy: DefaultPolicy) -> PolicyBook:
        """With one that is new, or in the place of the one of its id."""
        return PolicyBook(self.version, (*self.without_policy(policy.id).listed, policy))

    def without_policy(self, id: str) -> PolicyBook:
        """Without the one of an id."""
        return PolicyBook(self.version, tuple(each for each in self.listed if each.id != id))

    def of_row(self, table: PvTable, row: int, tags: TagBook) -> Effective:
        """What is said for the PV of a row."""
        return self.of_pv(table.policy[row], table.device[row], table.tags[row], tags)

    def of_pv(self, own: Policy, device: str, numbers: Sequence[int], tags: TagBook) -> Effective:
        """What is said for a PV of a device that carries tags."""
        by_tag: list[Said] = []
        for number in numbers:
            policy = self.by_tag.get(number)
            if policy is not None and number in tags.by_number:
                group, tag = tags.by_number[number]
                by_tag.append((PolicySpeaker(SpeakerKind.TAG, tag.name, group.name), policy.policy))
        by_tag.sort(key=lambda entry: (entry[0].group.casefold(), entry[0].name.casefold()))
        of_device = self.by_device.get(device)
        return effective_policy(
            own,
            by_tag,
            None
            if of_device is None
            else (PolicySpeaker(SpeakerKind.DEVICE, device), of_device.policy),
        )


NO_POLICIES = PolicyBook()


@dataclass(frozen=True, slots=True)
class EffectivePolicies:
    """What is said for n PVs: PV `numbers[i]`, ascending, has `listed[index[i]]`."""

    numbers: I8
    index: I8
    listed: list[Effective]


def effective_policies(table: PvTable, tags: TagBook, book: PolicyBook) -> EffectivePolicies:
    """What is said for those of whom anything is; equal ones are listed once."""
    rows, index = [], []
    listed: list[Effective] = []
    places: dict[tuple[object, ...], int] = {}
    devices, with_policy = book.by_device, book.by_tag.keys()
    for row, own in enumerate(table.policy):
        device = table.device[row] if table.device[row] in devices else ""
        carried = tuple(n for n in table.tags[row] if n in with_policy) if with_policy else ()
        if not device and not carried and (own is NO_POLICY or own == NO_POLICY):
            continue
        key = (id(own), device, carried)  # the table keeps the object, so that its id is its own
        place = places.get(key)
        if place is None:
            place = places[key] = len(listed)
            listed.append(book.of_row(table, row, tags))
        rows.append(row)
        index.append(place)
    return EffectivePolicies(
        table.number[np.array(rows, np.int64)], np.array(index, np.int64), listed
    )


def rows_of_subject(table: PvTable, policy: DefaultPolicy) -> list[int]:
    """Rows of the PVs that a policy is for."""
    if policy.tag:
        return [row for row, numbers in enumerate(table.tags) if policy.tag in numbers]
    return [row for row, device in enumerate(table.device) if device == policy.device]


def refuse_new_contradictions(
    table: PvTable,
    tags: TagBook,
    before: PolicyBook,
    after: PolicyBook,
    rows: Iterable[int],
    policy: DefaultPolicy | None,
) -> None:
    """Raise POLICY_CONTRADICTION where the policy of a PV begins to contradict itself.

    `policy`: the one that is set, whose part at fault is named; None: one is deleted.
    """
    refusals = [
        (table.name[row], found)
        for row in rows
        if (found := after.of_row(table, row, tags)).contradictions
        and not before.of_row(table, row, tags).contradictions
    ]
    if not refusals:
        return
    names = ", ".join(name for name, _ in refusals[:_NAMED])
    more = f" and {len(refusals) - _NAMED} more" if len(refusals) > _NAMED else ""
    first = refusals[0][1]
    path = "id" if policy is None else "policy.policy"
    part = part_at_fault(policy.policy, first.contradicted[0]) if policy else ""
    raise FailedPrecondition(
        f"the policy of {names}{more} would contradict itself: {first.contradictions[0]}."
        " Say it of the PV, or change the other policy first",
        reason=Reason.POLICY_CONTRADICTION,
        field=f"{path}.{part}" if part else path,
        metadata={"pvs": str(len(refusals)), "first_pv": refusals[0][0]},
    )
