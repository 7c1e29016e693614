"""The digest of a plan: what is looked at is what is executed.

The recipe stands at the message `Plan` of the contract, and any client computes the same from what
it reads. This is the one implementation that the service uses.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.values import ARRAY, I8, Columns, Kind, heap_mask
from drey_restore.domain.items import F8, I4, Labels, PlanItems
from drey_restore.domain.policy import policy_bytes, sources_bytes
from drey_restore.domain.records import Guard, PlanRecord, Rules

_WITHOUT_SOURCES = 2
"""The recipe before, of plans that had neither sources of policies nor names of records."""
_NANS = (
    (Kind.FLOAT64, "<f8", np.uint64(0x7FF8_0000_0000_0000)),
    (Kind.FLOAT32, "<f4", np.uint64(0x7FC0_0000)),
)
"""Kinds with NaN: numpy type, and the one NaN of the digest: not every language keeps others."""
_TITLE = "drey.restore.v1.Plan"


def plan_digest(plan: PlanRecord, items: PlanItems) -> str:
    """SHA-256 over the canonical bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in canonical_bytes(plan, items):
        digest.update(part)
    return digest.hexdigest()


def canonical_bytes(plan: PlanRecord, items: PlanItems) -> Iterator[bytes]:
    """The canonical bytes, in parts: the plan, then its items column by column."""
    yield _text_bytes(_TITLE) + struct.pack("<I", plan.recipe)
    head = (plan.id, plan.snapshot_id, plan.undoes_restore_id or "", plan.principal, plan.comment)
    yield b"".join(map(_text_bytes, head))
    yield struct.pack("<qq", plan.create_time_ns, plan.expire_time_ns)
    yield _rules_bytes(plan.rules)
    yield struct.pack("<I", len(items))
    yield items.number.astype("<u8").tobytes()
    for texts in (items.names, items.addresses, items.readback_addresses):
        yield from _texts_bytes(texts)
    yield from _values_bytes(items.current, items.label_of, items.label_sets)
    yield from _values_bytes(items.stored, items.stored_label_of, items.label_sets)
    yield from _values_bytes(items.target, items.label_of, items.label_sets)
    yield from _values_bytes(items.stored_readback, None, ())
    yield _float_bytes(items.delta)
    yield _float_bytes(items.deviation)
    yield items.stage.astype("<i4").tobytes()
    yield items.skip.tobytes()
    yield _float_bytes(items.absolute)
    yield _float_bytes(items.relative)
    yield _float_bytes(items.readback_absolute)
    yield _float_bytes(items.readback_relative)
    n = len(items)
    yield from _shared_cells(items.policy_of, [*map(policy_bytes, items.policies)])
    yield from _cell_bytes(n, {row: _ramp_bytes(steps) for row, steps in items.ramps.items()})
    yield from _shared_cells(items.label_of, [*map(_labels_bytes, items.label_sets)])
    yield from _cell_bytes(
        n, {row: b"".join(map(_text_bytes, warnings)) for row, warnings in items.warnings.items()}
    )
    if plan.recipe > _WITHOUT_SOURCES:
        yield from _shared_cells(items.policy_of, [*map(sources_bytes, items.policy_sources)])
        yield from _cell_bytes(n, {row: name.encode() for row, name in items.records.items()})


def _text_bytes(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return struct.pack("<I", len(raw)) + raw


def _rules_bytes(rules: Rules) -> bytes:
    parts = [struct.pack("<I", len(rules.guards)), *map(_guard_bytes, rules.guards)]
    parts.append(struct.pack("<I", len(rules.gates)))
    for gate in rules.gates:
        parts.append(struct.pack("<i", gate.after_stage))
        if gate.max_failed is not None:
            parts.append(struct.pack("<Bi", 1, gate.max_failed))
        else:
            parts.append(b"\0" if gate.guard is None else b"\2" + _guard_bytes(gate.guard))
    back = rules.rollback
    if back is None:
        parts.append(b"\0")
    else:
        most = -1 if back.max_failed is None else back.max_failed
        parts.append(struct.pack("<BiB", 1, most, back.on_guard))
    return b"".join(parts)


def _guard_bytes(guard: Guard) -> bytes:
    return _text_bytes(guard.expression) + _text_bytes(guard.description)


def _ramp_bytes(steps: Sequence[float]) -> bytes:
    return _float_bytes(np.array(steps, np.float64)) if steps else b""


def _float_bytes(column: F8) -> bytes:
    return np.where(np.isnan(column), np.nan, column).astype("<f8").tobytes()


def _cell_bytes(n: int, cells: Mapping[int, bytes]) -> Iterator[bytes]:
    """A column of bytes by row, most of them empty: the length of each, then all."""
    rows = sorted(cells)
    filled = [cells[row] for row in rows]
    lengths = np.zeros(n, "<u4")
    lengths[rows] = np.fromiter(map(len, filled), "<u4", len(filled))
    yield lengths.tobytes()
    yield b"".join(filled)


def _texts_bytes(texts: list[str]) -> Iterator[bytes]:
    if "".join(texts).isascii():
        yield np.fromiter(map(len, texts), "<u4", len(texts)).tobytes()
        yield "".join(texts).encode()
    else:
        encoded = [text.encode("utf-8", "replace") for text in texts]
        yield np.fromiter(map(len, encoded), "<u4", len(encoded)).tobytes()
        yield b"".join(encoded)


def _shared_cells(index: I4, listed: Sequence[bytes]) -> Iterator[bytes]:
    """A column of bytes, `listed[i]` of each index, nothing where it is -1."""
    lengths = np.array([*map(len, listed), 0], "<u4")[index]
    yield lengths.tobytes()
    filled = index[lengths != 0]
    if len(filled) and bool((filled == filled[0]).all()):
        yield listed[int(filled[0])] * len(filled)  # nearly always: all have the same
    else:
        yield b"".join([listed[i] for i in filled.tolist()])


def _labels_bytes(labels: Iterable[bytes]) -> bytes:
    return b"".join(_text_bytes(label.decode(errors="replace")) for label in labels)


def _values_bytes(columns: Columns, label_of: I4 | None, sets: Sequence[Labels]) -> Iterator[bytes]:
    there = columns.kind != Kind.NONE

    def column(values: NDArray[Any], dtype: str) -> bytes:
        return np.where(there, values, 0).astype(dtype).tobytes()

    yield columns.kind.tobytes()
    yield column(columns.state, "u1")
    yield column(columns.origin, "u1")
    yield column(columns.severity.astype(np.uint16) + 1, "u1")
    yield column(columns.status.astype(np.uint32) + 1, "<u4")
    yield column(columns.source_time, "<i8")
    yield column(columns.receive_time, "<i8")
    in_heap = heap_mask(columns.kind)
    data = np.where(there & ~in_heap, columns.data, np.uint64(0))
    short = (columns.kind == Kind.FLOAT32) | (columns.kind == Kind.ENUM)
    data[short] &= np.uint64(0xFFFF_FFFF)
    truths = columns.kind == Kind.BOOL
    data[truths] = data[truths] != 0
    for kind, form, nan in _NANS:
        of_kind = np.flatnonzero(columns.kind == kind)
        data[of_kind[np.isnan(data[of_kind].astype(form.replace("f", "u")).view(form))]] = nan
    yield data.astype("<u8").tobytes()
    yield from _cell_bytes(
        len(columns),
        {
            row: _elements_bytes(int(columns.kind[row]), columns.heap_bytes(row))
            for row in np.flatnonzero(in_heap).tolist()
        },
    )
    yield from _cell_bytes(len(columns), _value_labels(columns, label_of, sets))


def _elements_bytes(kind: int, raw: bytes) -> bytes:
    """A string or an array; one NaN for all, and 0 or 1 for truths."""
    if kind == Kind.BOOL | ARRAY:
        return bytes((np.frombuffer(raw, "u1") != 0).tobytes())
    for of, form, _ in _NANS:
        if kind == of | ARRAY:
            elements = np.frombuffer(raw, form)
            return bytes(np.where(np.isnan(elements), np.array(np.nan, form), elements).tobytes())
    return raw


def _value_labels(
    columns: Columns, label_of: I4 | None, sets: Sequence[Labels]
) -> dict[int, bytes]:
    """The label of each scalar enumeration that has one, by row."""
    out: dict[int, bytes] = {}
    if label_of is None:
        return out
    rows: I8 = np.flatnonzero((columns.kind == Kind.ENUM) & (label_of >= 0))
    for row in rows.tolist():
        labels, index = sets[int(label_of[row])], int(columns.data[row]) & 0xFFFF_FFFF
        if index < len(labels):
            out[row] = labels[index].decode(errors="replace").encode()
    return out
