"""One PV on its way into the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from drey_core.errors import InvalidArgument
from drey_core.pv_table import NO_POLICY, Policy
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.table import COLUMNS, PvTable

PROTOCOL_CA = 1
MAX_TAGS = 1000


@dataclass(slots=True)
class Draft:
    """A PV with the columns of `PvTable`, in their order; changed freely until it is written."""

    number: int = 0
    id: str = ""
    name: str = ""
    device: str = ""
    description: str = ""
    protocol: int = PROTOCOL_CA
    read_only: bool = False
    setpoint_channel: int = 0
    readback_channel: int = 0
    setpoint_address: str = ""
    readback_address: str = ""
    setpoint_absolute: float = 0.0
    setpoint_relative: float = 0.0
    readback_absolute: float = 0.0
    readback_relative: float = 0.0
    policy: Policy = NO_POLICY
    tags: tuple[int, ...] = ()
    version: int = 0
    create_time_ns: int = 0
    update_time_ns: int = 0
    delete_time_ns: int = 0

    @property
    def etag(self) -> str:
        """Changes with every change of the PV."""
        return f"{self.version:x}"


CONTENT = (
    *("name", "device", "description", "protocol", "read_only"),
    *("setpoint_address", "readback_address"),
    *("setpoint_absolute", "setpoint_relative", "readback_absolute", "readback_relative"),
    *("policy", "tags"),
)
"""What people say of a PV; the rest is made by the server."""


_columns = attrgetter(*COLUMNS)
_content = attrgetter(*CONTENT)


def draft_of(table: PvTable, row: int) -> Draft:
    """The PV of a row, for the edge and for changes; plain Python values."""
    return next(drafts_of(table, [row]))


def drafts_of(table: PvTable, rows: Sequence[int]) -> Iterator[Draft]:
    """The PVs of rows, column by column: the way for many."""
    columns = [
        [column[row] for row in rows] if isinstance(column, list) else column[rows].tolist()
        for column in _columns(table)
    ]
    return map(Draft, *columns)


def table_of(drafts: Sequence[Draft]) -> PvTable:
    """Columns of PVs, in their order."""
    return PvTable.table_of_columns(
        {name: [getattr(draft, name) for draft in drafts] for name in COLUMNS}
    )


def copy_of(draft: Draft) -> Draft:
    """Another draft with the same values."""
    return Draft(*_columns(draft))


_INFINITY = float("inf")
_TOLERANCES = tuple((r, p) for r in ("setpoint", "readback") for p in ("absolute", "relative"))
_tolerances = attrgetter(*(f"{role}_{part}" for role, part in _TOLERANCES))


def check_draft(draft: Draft, path: str) -> None:
    """Rules over more than one field. `path` is that of the PV in the request, without a dot."""
    if not draft.setpoint_address and not draft.readback_address:
        raise _refuse_field(
            f"{path}.setpoint.address",
            "a PV needs the address of a setpoint, of a readback, or both",
        )
    if draft.policy is not NO_POLICY:
        policies.check_policy(
            draft.policy,
            has_readback=bool(draft.readback_address),
            path=f"{path}.restore_policy",
        )
    if len(draft.tags) > MAX_TAGS:
        raise _refuse_field(f"{path}.tags", f"more than {MAX_TAGS} tags")
    for (role, part), value in zip(_TOLERANCES, _tolerances(draft), strict=True):
        if not 0 <= value < _INFINITY:
            field = f"{path}.{role}.tolerance.{part}"
            raise _refuse_field(field, f"{value} is not a finite number of 0 or more")


def _refuse_field(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})


def differing_fields(one: Draft, other: Draft) -> list[str]:
    """Names of the fields of `CONTENT` in which two PVs differ."""
    if _content(one) == _content(other):
        return []
    return [name for name in CONTENT if getattr(one, name) != getattr(other, name)]
