"""Items of plans and restores as protobuf bytes, column by column, as far as that goes.

Everything of one width is a byte matrix that is cut into rows; names, addresses and values are
lists of bytes; a row is what stands at one place of all of them, joined. A value that is too large
for one message begins in its item, and goes on in items of the same number that follow at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_ca import eca
from drey_core.values import I8, Columns, Kind, heap_mask
from drey_core.wire import chunk_rows
from drey_core.wire_values import (
    MAX_CHUNK_BYTES,
    encode_values_in_parts,
    encode_varint,
    wrap_payload,
)
from drey_restore.adapters.specs import policy_message, source_message
from drey_restore.domain.explaining import explain_rows
from drey_restore.domain.items import F8, Labels, Outcome, PlanItems
from drey_restore.domain.kinds import Skip, Verdict

_ROWS_AT_ONCE = 2_000
_BYTES_AT_ONCE = 16 << 20
_PART_BYTES = MAX_CHUNK_BYTES // 4
"""Of a value: four of them make a chunk."""

Field = list[bytes]
"""One field of every row, tag and length included; empty where a row has none."""
Rest = dict[int, list[bytes]]
"""By index of a row: fields with the further parts of its large values, in order."""


def plan_chunks(items: PlanItems, *, writes_only: bool, skips: Sequence[int]) -> Iterator[bytes]:
    """ReadPlanResponse messages: writes by stage and name, then what is left out by name."""
    wanted = np.isin(items.skip, list(skips)) if skips else np.ones(len(items), bool)
    if writes_only:
        wanted = items.skip == Skip.NONE
    rows = _by_name(items, wanted)
    rows = rows[np.lexsort((items.stage[rows], items.skip[rows] != Skip.NONE))]
    values = (items.current, items.stored, items.target, items.stored_readback)
    yield from _encode_chunks(
        items, rows, values, lambda part, rest: _plan_items(items, part, rest)
    )


def restore_chunks(
    items: PlanItems, outcome: Outcome, *, verdicts: Sequence[int], held: Collection[int] = ()
) -> Iterator[bytes]:
    """ReadRestoreResponse messages, by name. `held`: numbers of PVs that may still be written."""
    wanted = np.isin(outcome.verdict, list(verdicts)) if verdicts else np.ones(len(items), bool)
    rows = _by_name(items, wanted)
    values = (
        *(outcome.before, items.target, outcome.seen, outcome.readback),
        outcome.interference,
    )
    yield from _encode_chunks(
        items, rows, values, lambda part, rest: _restore_items(items, outcome, part, held, rest)
    )


def _by_name(items: PlanItems, wanted: NDArray[np.bool_]) -> I8:
    rows = sorted(np.flatnonzero(wanted).tolist(), key=items.names.__getitem__)
    return np.array(rows, np.int64)


def _encode_chunks(
    items: PlanItems,
    rows: I8,
    values: Sequence[Columns],
    encode: Callable[[I8, Rest], list[Field]],
) -> Iterator[bytes]:
    for part in _row_portions(rows, values):
        rest: Rest = defaultdict(list)
        fields = encode(part, rest)
        encoded = list(map(wrap_payload, repeat(1), map(b"".join, zip(*fields, strict=True))))
        for index, further in rest.items():
            number = _fixed_field([(1, "<u8", items.number[part[index : index + 1]])])[0]
            encoded[index] += b"".join(wrap_payload(1, number + field) for field in further)
        yield from chunk_rows(encoded)


def _row_portions(rows: I8, values: Sequence[Columns]) -> Iterator[I8]:
    """Rows to be encoded at a time: not too many, and not too many bytes."""
    sizes = np.zeros(len(rows), np.int64)
    for columns in values:
        lengths = (columns.data[rows] >> np.uint64(32)).astype(np.int64)
        sizes += np.where(heap_mask(columns.kind[rows]), lengths, 0)
    ends = np.cumsum(sizes)
    first = 0
    while first < len(rows):
        begin = int(ends[first] - sizes[first])
        last = max(int(np.searchsorted(ends, begin + _BYTES_AT_ONCE, side="right")), first + 1)
        last = min(last, first + _ROWS_AT_ONCE)
        yield rows[first:last]
        first = last


def _plan_items(items: PlanItems, rows: I8, rest: Rest) -> list[Field]:
    return [
        _fixed_field([(1, "<u8", items.number[rows])]),
        _text_field(2, items.names, rows),
        _text_field(3, items.addresses, rows),
        _text_field(4, items.readback_addresses, rows),
        _value_field(5, items, items.current, rows, rest, items.labels),
        _value_field(6, items, items.stored, rows, rest, items.stored_labels),
        _value_field(7, items, items.target, rows, rest, items.labels),
        _optional_doubles(8, items.delta[rows]),
        _optional_doubles(9, items.deviation[rows]),
        _varint_field(10, items.stage[rows]),
        _each_field(items.policy_of[rows], _policy_messages(items).__getitem__),
        _ramp_field(13, items, rows),
        _fixed_field([(1, "<f8", items.absolute[rows]), (2, "<f8", items.relative[rows])], 14),
        _fixed_field(
            [(1, "<f8", items.readback_absolute[rows]), (2, "<f8", items.readback_relative[rows])],
            15,
        ),
        _value_field(16, items, items.stored_readback, rows, rest),
        _each_field(items.label_of[rows], [*_label_messages(17, items), b""].__getitem__),
        _varint_field(18, items.skip[rows]),
        _warning_field(19, items, rows),
        _record_field(20, items, rows),
    ]


def _restore_items(
    items: PlanItems, outcome: Outcome, rows: I8, held: Collection[int], rest: Rest
) -> list[Field]:
    verdict = outcome.verdict[rows]
    return [
        _fixed_field([(1, "<u8", items.number[rows])]),
        _text_field(2, items.names, rows),
        _varint_field(3, verdict),
        _varint_field(4, np.where(verdict == Verdict.SKIPPED, items.skip[rows], 0)),
        _value_field(5, items, outcome.before, rows, rest, items.labels),
        _value_field(6, items, items.target, rows, rest, items.labels),
        _value_field(7, items, outcome.seen, rows, rest, items.labels),
        _value_field(8, items, outcome.readback, rows, rest),
        _each_field(
            outcome.code[rows],
            lambda code: wrap_payload(9, eca.name(code).encode()) if code else b"",
        ),
        _varint_field(10, items.stage[rows]),
        _time_field(11, outcome.sent_time[rows]),
        _time_field(12, outcome.completion_time[rows]),
        _each_field(
            outcome.readback_reached[rows],
            lambda reached: b"" if reached < 0 else _field_tag(13, 0) + encode_varint(reached),
        ),
        _varint_field(14, np.isin(items.number[rows], list(held)).astype(np.int64)),
        [wrap_payload(15, text.encode()) for text in explain_rows(items, outcome, rows, held)],
        _varint_field(16, outcome.steps[rows]),
        _value_field(17, items, outcome.interference, rows, rest, items.labels),
        _varint_field(18, outcome.interferences[rows]),
    ]


def _field_tag(number: int, wire_type: int) -> bytes:
    return encode_varint(number << 3 | wire_type)


def _fixed_field(fields: Sequence[tuple[int, str, NDArray[Any]]], within: int = 0) -> Field:
    """Fields of 8 bytes each, (number, type, column), joined; in a message `within` unless 0."""
    layout = [part for n, kind, _ in fields for part in ((f"tag{n}", "u1"), (f"field{n}", kind))]
    table = np.zeros(len(fields[0][2]), np.dtype(layout))
    for number, _, column in fields:
        table[f"tag{number}"] = _field_tag(number, 1)[0]
        table[f"field{number}"] = column
    cut: Field = table.view(f"V{table.dtype.itemsize}").tolist()
    return list(map(wrap_payload, repeat(within), cut)) if within else cut


def _optional_doubles(number: int, column: F8) -> Field:
    """Doubles; nothing where NaN stands for none."""
    out = _fixed_field([(number, "<f8", column)])
    for row in np.flatnonzero(np.isnan(column)).tolist():
        out[row] = b""
    return out


def _each_field(column: NDArray[Any], encode: Callable[[int], bytes]) -> Field:
    """`encode` of each entry, called once for each different one."""
    encoded = {entry: encode(entry) for entry in set(column.tolist())}
    return [encoded[entry] for entry in column.tolist()]


def _varint_field(number: int, column: NDArray[Any]) -> Field:
    tag = _field_tag(number, 0)
    return _each_field(column, lambda entry: tag + encode_varint(entry & 0xFFFF_FFFF_FFFF_FFFF))


def _time_field(number: int, column: I8) -> Field:
    """Timestamps of nanoseconds since 1970 UTC; nothing where 0 stands for none."""

    def one(at_ns: int) -> bytes:
        seconds, nanos = divmod(at_ns, 10**9)
        return wrap_payload(
            number,
            _field_tag(1, 0) + encode_varint(seconds) + _field_tag(2, 0) + encode_varint(nanos),
        )

    return _each_field(column, lambda at_ns: one(at_ns) if at_ns else b"")


def _policy_messages(items: PlanItems) -> list[bytes]:
    """Fields 11 and 12, what is followed and who says so, of each policy."""
    return [
        wrap_payload(11, policy_message(policy).SerializeToString())
        + b"".join(wrap_payload(12, source_message(each).SerializeToString()) for each in sources)
        for policy, sources in zip(items.policies, items.policy_sources, strict=True)
    ]


def _record_field(number: int, items: PlanItems, rows: I8) -> Field:
    if not items.records:
        return [b""] * len(rows)
    names = [items.records.get(row, "") for row in rows.tolist()]
    return [wrap_payload(number, name.encode()) if name else b"" for name in names]


def _label_messages(number: int, items: PlanItems) -> list[bytes]:
    """Each list of labels as a repeated field."""
    return [
        b"".join(wrap_payload(number, label.decode(errors="replace").encode()) for label in labels)
        for labels in items.label_sets
    ]


def _text_field(number: int, texts: list[str], rows: I8) -> Field:
    raws = [texts[row].encode("utf-8", "replace") for row in rows.tolist()]
    return list(map(wrap_payload, repeat(number), raws))


def _ramp_field(number: int, items: PlanItems, rows: I8) -> Field:
    if not items.ramps:
        return [b""] * len(rows)
    steps = [items.ramps.get(row, ()) for row in rows.tolist()]
    return [
        wrap_payload(number, np.array(each, "<f8").tobytes()) if each else b"" for each in steps
    ]


def _warning_field(number: int, items: PlanItems, rows: I8) -> Field:
    if not items.warnings:
        return [b""] * len(rows)
    return [
        b"".join(wrap_payload(number, text.encode()) for text in items.warnings.get(row, ()))
        for row in rows.tolist()
    ]


def _value_field(
    number: int,
    items: PlanItems,
    columns: Columns,
    rows: I8,
    rest: Rest,
    labels: Callable[[int], Labels] | None = None,
) -> Field:
    """`Value` of each row; further parts of what is large go to `rest`."""
    taken = columns.take_rows(rows).with_key(rows)
    names = [items.names[row] for row in rows.tolist()]
    firsts, further = encode_values_in_parts(taken, names, _PART_BYTES, labels=labels)
    out = list(map(wrap_payload, repeat(number), firsts))
    for index, parts in further.items():
        rest[index] += map(wrap_payload, repeat(number), parts)
    for index in np.flatnonzero(taken.kind == Kind.NONE).tolist():
        out[index] = b""
    return out
