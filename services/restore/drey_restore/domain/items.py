"""The items of a plan and of a restore, as columns."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import Internal
from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import I8, U1, Columns, pack_strings, unpack_strings
from drey_restore.domain import blob
from drey_restore.domain.addresses import comes_first, field_key, renamed_address
from drey_restore.domain.kinds import Skip
from drey_restore.domain.policy import (
    DEFAULT,
    DEFAULT_SOURCES,
    Sources,
    done_address,
    policy_bytes,
    policy_of_bytes,
    sources_bytes,
    sources_of_bytes,
)

F8 = NDArray[np.float64]
I4 = NDArray[np.int32]
Labels = tuple[bytes, ...]


@dataclass(frozen=True)
class PlanItems:
    """n PVs of a plan, ordered by number; every array and list has n entries.

    `current`, `target` and `stored_readback` are keyed by channel number (0: none); a target of
    kind NONE is left out. `absolute`/`relative` are the setpoint's tolerance. `delta` is target
    minus current, `deviation` its size in tolerances, NaN where they are not numbers.
    `label_sets[label_of[i]]` are the live enum labels of setpoint i (-1: none), and those of
    `stored_label_of` the labels as of the stored value. `policies[policy_of[i]]` is followed, as
    `policy_sources[policy_of[i]]` say, and `ramps[i]` are the values that are written before the
    target. `records[i]`: what the record is called (.NAME) where the address says it otherwise.
    """

    number: I8
    names: list[str]
    addresses: list[str]
    readback_addresses: list[str]
    current: Columns
    stored: Columns
    target: Columns
    stored_readback: Columns
    absolute: F8
    relative: F8
    readback_absolute: F8
    readback_relative: F8
    delta: F8
    deviation: F8
    stage: I4
    policy_of: I4
    skip: U1
    label_of: I4
    stored_label_of: I4
    policies: list[Policy] = field(default_factory=lambda: [DEFAULT])
    policy_sources: list[Sources] = field(default_factory=lambda: [DEFAULT_SOURCES])
    label_sets: list[Labels] = field(default_factory=list)
    warnings: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    ramps: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    records: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.number)

    @property
    def writes(self) -> I8:
        """Rows that are written, in the order of writing: by stage, limits and modes first."""
        rows = np.flatnonzero(self.skip == Skip.NONE)
        return rows[np.lexsort((self.is_value[rows], self.stage[rows]))]

    @cached_property
    def is_value(self) -> NDArray[np.bool_]:
        """Which are written after the limits and modes of their stage."""
        if "." not in "".join(self.addresses):
            return np.ones(len(self), bool)
        return np.array([not comes_first(address) for address in self.addresses], bool)

    @property
    def rows_by_stage(self) -> list[I8]:
        """Rows that are written, stage by stage, lowest first."""
        rows = self.writes
        return np.split(rows, np.flatnonzero(np.diff(self.stage[rows])) + 1) if len(rows) else []

    def done_address(self, row: int) -> str:
        """Address of the channel by which the write of a row is complete; empty: by none."""
        return done_address(self.policies[int(self.policy_of[row])], self.addresses[row])

    def field_written(self, row: int) -> str:
        """One text for all names of the field that a row writes, by what its record is called."""
        address, record = self.addresses[row], self.records.get(row)
        return field_key(address if record is None else renamed_address(address, record))

    @cached_property
    def completion(self) -> U1:
        """How the completion of each is judged."""
        return np.array([int(p.completion) for p in self.policies], np.uint8)[self.policy_of]

    @cached_property
    def name_section(self) -> bytes:
        """The names as a section of a blob."""
        return blob.text_section(self.names)

    @cached_property
    def address_section(self) -> bytes:
        """The setpoints' addresses as a section of a blob."""
        return blob.text_section(self.addresses)

    def labels(self, row: int) -> Labels:
        """Live enum labels of a row's setpoint; empty where it has none."""
        set_number = int(self.label_of[row])
        return self.label_sets[set_number] if set_number >= 0 else ()

    def stored_labels(self, row: int) -> Labels:
        """Enum labels of a row's setpoint as of the stored value; empty where it has none."""
        set_number = int(self.stored_label_of[row])
        return self.label_sets[set_number] if set_number >= 0 else ()

    def encode_items(self) -> bytes:
        """Bytes for the database."""
        rows = sorted(self.warnings)
        texts = ["\n".join(self.warnings[row]) for row in rows]
        ramped = sorted(self.ramps)
        sections: dict[str, blob.Section] = {
            "number": self.number,
            "names": self.name_section,
            "addresses": self.address_section,
            "readback_addresses": blob.text_section(self.readback_addresses),
            **{name: getattr(self, name) for name in _ARRAYS},
            "warning_rows": np.array(rows, np.int64),
            "warnings": blob.text_section(texts),
            "label_sizes": np.array([len(s) for s in self.label_sets], np.int64),
            "labels": pack_strings([label for s in self.label_sets for label in s]),
            "policies": pack_strings([policy_bytes(policy) for policy in self.policies]),
            "policy_sources": pack_strings(list(map(sources_bytes, self.policy_sources))),
            "record_rows": np.array(sorted(self.records), np.int64),
            "records": blob.text_section([self.records[row] for row in sorted(self.records)]),
            "ramp_rows": np.array(ramped, np.int64),
            "ramp_steps": pack_strings(
                [np.array(self.ramps[row], "<f8").tobytes() for row in ramped]
            ),
        }
        for name in _COLUMNS:
            sections |= blob.columns_sections(name, getattr(self, name))
        return blob.encode_sections(sections)

    @classmethod
    def decode_items(cls, raw: bytes) -> PlanItems:
        """Inverse of `encode`. Raises `Internal` on anything else."""
        try:
            return cls._decode_sections(blob.decode_sections(raw))
        except (KeyError, ValueError, IndexError, TypeError, OverflowError, struct.error) as error:
            raise Internal(f"stored items of a plan are damaged: {error!r}") from error

    @classmethod
    def _decode_sections(cls, s: dict[str, blob.Section]) -> PlanItems:
        _complete_sections(s)
        rows = np.asarray(s["warning_rows"]).tolist()
        texts = blob.texts_of(s["warnings"])
        labels = unpack_strings(bytes(s["labels"]))
        sets, position = [], 0
        for size in np.asarray(s["label_sizes"]).tolist():
            sets.append(tuple(labels[position : position + size]))
            position += size
        fields: dict[str, Any] = {name: s[name] for name in _ARRAYS}
        fields |= {name: blob.columns_of(name, s) for name in _COLUMNS}
        return cls(
            number=np.asarray(s["number"]),
            names=blob.texts_of(s["names"]),
            addresses=blob.texts_of(s["addresses"]),
            readback_addresses=blob.texts_of(s["readback_addresses"]),
            label_sets=sets,
            policies=[policy_of_bytes(raw) for raw in unpack_strings(bytes(s["policies"]))],
            policy_sources=_sources_of(s),
            records=_records_of(s),
            warnings={r: tuple(t.split("\n")) for r, t in zip(rows, texts, strict=True)},
            ramps=_ramps_of(s),
            **fields,
        )


def _sources_of(s: Mapping[str, blob.Section]) -> list[Sources]:
    if "policy_sources" not in s:
        return [() for _ in unpack_strings(bytes(s["policies"]))]  # made before they were kept
    return [sources_of_bytes(raw) for raw in unpack_strings(bytes(s["policy_sources"]))]


def _records_of(s: Mapping[str, blob.Section]) -> dict[int, str]:
    if "record_rows" not in s:
        return {}
    rows = np.asarray(s["record_rows"]).tolist()
    return dict(zip(rows, blob.texts_of(s["records"]), strict=True))


def _ramps_of(s: Mapping[str, blob.Section]) -> dict[int, tuple[float, ...]]:
    if "ramp_rows" not in s:
        return {}  # made before there were ramps
    steps = [np.frombuffer(raw, "<f8") for raw in unpack_strings(bytes(s["ramp_steps"]))]
    rows = np.asarray(s["ramp_rows"]).tolist()
    return {row: tuple(row_steps.tolist()) for row, row_steps in zip(rows, steps, strict=True)}


def _complete_sections(s: dict[str, blob.Section]) -> None:
    """Add what the first version did not store."""
    if "policies" in s:
        return
    completion = np.asarray(s["completion"])
    followed = sorted(set(completion.tolist()))
    s["policies"] = pack_strings(
        [policy_bytes(Policy(completion=CompletionMode(each))) for each in followed]
    )
    s["policy_of"] = np.searchsorted(followed, completion).astype(np.int32)
    n = len(completion)
    s["stored_label_of"] = np.full(n, -1, np.int32)
    s |= blob.columns_sections("stored", Columns.empty_columns(n))


_ARRAYS = (
    "absolute",
    "relative",
    "readback_absolute",
    "readback_relative",
    "delta",
    "deviation",
    "stage",
    "policy_of",
    "skip",
    "label_of",
    "stored_label_of",
)
_COLUMNS = ("current", "stored", "target", "stored_readback")


@dataclass(frozen=True)
class Outcome:
    """What became of the n items of a plan; every array has n entries, rows as in the plan.

    `code` is the ECA status of the write (0: none), times are nanoseconds since 1970 UTC (0:
    none). `readback_reached`: 1 yes, 0 no, -1 there is none to compare. `moving`: 1 the readback
    still moved when it was last looked at, 0 it stood still, -1 that is not known. `before`, `seen`
    and `readback` have kind NONE where nothing was read. `steps` of the ramp were sent.
    `interference` is the first change while it was written that was not its own (kind NONE: none),
    `interferences` how many there were.
    """

    verdict: U1
    code: I4
    sent_time: I8
    completion_time: I8
    readback_reached: NDArray[np.int8]
    moving: NDArray[np.int8]
    steps: I4
    interferences: I4
    before: Columns
    seen: Columns
    readback: Columns
    interference: Columns

    @classmethod
    def fresh_outcome(cls, items: PlanItems, verdict: U1) -> Outcome:
        """Nothing sent yet; `before` as the plan saw it."""
        n = len(items)
        return cls(
            verdict=verdict,
            code=np.zeros(n, np.int32),
            sent_time=np.zeros(n, np.int64),
            completion_time=np.zeros(n, np.int64),
            readback_reached=np.full(n, -1, np.int8),
            moving=np.full(n, -1, np.int8),
            steps=np.zeros(n, np.int32),
            interferences=np.zeros(n, np.int32),
            before=items.current,
            seen=Columns.empty_columns(n),
            readback=Columns.empty_columns(n),
            interference=Columns.empty_columns(n),
        )

    def encode_outcome(self) -> bytes:
        """Bytes for the database."""
        sections: dict[str, blob.Section] = {name: getattr(self, name) for name in _OUTCOME}
        for name in _READ:
            sections |= blob.columns_sections(name, getattr(self, name))
        return blob.encode_sections(sections)

    @classmethod
    def decode_outcome(cls, raw: bytes) -> Outcome:
        """Inverse of `encode`. Raises `Internal` on anything else."""
        s = blob.decode_sections(raw)
        # outcomes of the first version do not have it
        s.setdefault("moving", np.full(len(s["verdict"]), -1, np.int8))
        for name in ("steps", "interferences"):
            s.setdefault(name, np.zeros(len(s["verdict"]), np.int32))
        if "interference.key" not in s:
            s |= blob.columns_sections("interference", Columns.empty_columns(len(s["verdict"])))
        fields: dict[str, Any] = {name: s[name] for name in _OUTCOME}
        fields |= {name: blob.columns_of(name, s) for name in _READ}
        return cls(**fields)


_OUTCOME = (
    *("verdict", "code", "sent_time", "completion_time", "readback_reached", "moving"),
    *("steps", "interferences"),
)
_READ = ("before", "seen", "readback", "interference")


@dataclass(frozen=True)
class Carried:
    """What an interrupted execution left to the one that continues it.

    `readback` is that before its first write; `also_unknown`: what it may have sent is sent again.
    """

    outcome: Outcome
    readback: Columns
    also_unknown: bool = False

    def merged_before(self, setpoint: Columns, readback: Columns) -> tuple[Columns, Columns]:
        """(setpoints, readbacks) before the first write of both, by what was read before this."""
        sent = np.flatnonzero(self.outcome.sent_time != 0)
        return (
            scatter_rows(setpoint, sent, self.outcome.before.take_rows(sent)),
            scatter_rows(readback, sent, self.readback.take_rows(sent)),
        )


def scatter_rows(into: Columns, rows: I8, values: Columns) -> Columns:
    """`into` with `values[i]` in row `rows[i]`; the heap holds what the rows refer to, no more."""
    both = Columns.concat_columns([into, values])
    index = np.arange(len(into))
    index[rows] = len(into) + np.arange(len(rows))
    return both.take_rows(index).compact_heap()
