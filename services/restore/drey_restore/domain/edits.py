"""Edits of a plan: what is written instead of the value of the source, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    I8,
    Columns,
    Kind,
    Severity,
    State,
    bits_scalar,
    encode_value,
    heap_ref,
)
from drey_restore.domain.items import Labels
from drey_restore.domain.kinds import Skip

_NO_NUMBERS = (Kind.NONE, Kind.BOOL, Kind.STRING, Kind.ENUM)
_FLOATS = (Kind.FLOAT32, Kind.FLOAT64)


@dataclass(frozen=True)
class Given:
    """A value instead of that of the source: its kind and its bits or heap bytes.

    `label`: of an enumeration, by which it is meant; so is a text for a channel that is one.
    """

    kind: int
    data: int | bytes
    label: bytes = b""

    @property
    def edit_text(self) -> str:
        """For people."""
        if self.label:
            return self.label.decode(errors="replace")
        if isinstance(self.data, bytes):
            return (
                f"{len(self.data)} bytes"
                if self.kind & ARRAY
                else self.data.decode("utf-8", "replace")
            )
        return f"{bits_scalar(self.kind, self.data)}"


@dataclass(frozen=True)
class Linear:
    """The value of the source, `* scale + offset`; of an array each element."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def edit_text(self) -> str:
        """For people."""
        return f"the stored value * {self.scale:.12g} + {self.offset:.12g}"


@dataclass(frozen=True)
class Edited:
    """The source as it was edited: `values` and `labels` as before, but for `rows`.

    `problems`: why a row cannot be edited so. `warnings`: what to say, by row.
    """

    values: Columns
    labels: Mapping[int, Labels]
    rows: I8
    problems: Mapping[int, Skip]
    warnings: Mapping[int, tuple[str, ...]]


def give_values(
    stored: Columns,
    live_kind: np.ndarray[tuple[int], np.dtype[np.uint8]],
    live_labels: Callable[[int], Labels],
    given: Mapping[int, Given],
) -> Edited:
    """A source that is nothing but given values, by row; labels are those of today."""
    edits = [(np.array([row]), value) for row, value in given.items()]
    edited = edit_source(stored, {}, live_kind, live_labels, edits)
    # nothing stood there before: only what is wrong with a value is told
    told = {row: texts[1:] for row, texts in edited.warnings.items() if len(texts) > 1}
    return replace(edited, warnings=told)


def edit_source(
    stored: Columns,
    labels: Mapping[int, Labels],
    live_kind: np.ndarray[tuple[int], np.dtype[np.uint8]],
    live_labels: Callable[[int], Labels],
    edits: Sequence[tuple[I8, Given | Linear]],
) -> Edited:
    """Apply edits, each to its rows, to the values of the source; of two for a row the later."""
    last = {row: edit for rows, edit in edits for row in rows.tolist()}
    kind, data, state = stored.kind.copy(), stored.data.copy(), stored.state.copy()
    severity, status = stored.severity.copy(), stored.status.copy()
    heap = bytearray(stored.heap)
    changed_labels = dict(labels)
    problems: dict[int, Skip] = {}
    warnings: dict[int, tuple[str, ...]] = {}
    for row, edit in sorted(last.items()):
        warnings[row] = (f"edited: {edit.edit_text}, instead of the value of the source",)
        if isinstance(edit, Linear):
            if kind[row] == Kind.NONE:
                continue  # there is nothing to scale: not in the source
            if int(kind[row]) & ~ARRAY in _NO_NUMBERS:
                problems[row] = Skip.TYPE_CHANGED
                warnings[row] += ("it is not a number, and cannot be scaled",)
                continue
            warnings[row] = (f"edited: {edit.edit_text}",)
            kind[row], encoded = _scale_value(stored, row, edit)
        else:
            kind[row], encoded = edit.kind, edit.data
            label = edit.label or (edit.data if edit.kind == Kind.STRING else b"")
            if live_kind[row] == Kind.ENUM and isinstance(label, bytes) and label:
                places = [i for i, text in enumerate(live_labels(row)) if text == label]
                kind[row], encoded = Kind.ENUM, places[0] if places else 0
                changed_labels.pop(row, None)
                if len(places) != 1:
                    problems[row] = Skip.LABEL_GONE
                    why = "is not among" if not places else "stands twice among"
                    warnings[row] += (f"the label {why} today's labels",)
            state[row], severity[row], status[row] = State.CONNECTED, Severity.NO_ALARM, 0
        if isinstance(encoded, bytes):
            data[row] = heap_ref(len(heap), len(encoded))
            heap += encoded
        else:
            data[row] = encoded
    values = replace(
        stored,
        kind=kind,
        data=data,
        state=state,
        severity=severity,
        status=status,
        heap=bytes(heap),
    )
    return Edited(values, changed_labels, np.array(sorted(last), np.int64), problems, warnings)


def _scale_value(stored: Columns, row: int, edit: Linear) -> tuple[int, int | bytes]:
    """(kind, bits or heap bytes); a float where integers do not stay integers."""
    kind = int(stored.kind[row])
    if not kind & ARRAY:
        number = bits_scalar(kind, int(stored.data[row]))
        scaled = _apply_linear(number, edit)
        if kind in _FLOATS or not scaled.is_integer():
            kind = kind if kind in _FLOATS else int(Kind.FLOAT64)
            with np.errstate(over="ignore"):  # what a FLOAT32 cannot hold is infinite
                return encode_value(scaled, kind)
        try:
            return encode_value(int(scaled), kind)
        except (OverflowError, ValueError):
            return encode_value(scaled, int(Kind.FLOAT64))
    element = kind & ~ARRAY
    numbers = np.frombuffer(stored.heap_bytes(row), ELEMENT_DTYPE[element])
    with np.errstate(over="ignore", invalid="ignore"):
        floats = numbers.astype(np.float64) * edit.scale + edit.offset
        back = floats.astype(numbers.dtype)
    if element in _FLOATS or bool((back.astype(np.float64) == floats).all()):
        return kind, back.tobytes()
    return int(Kind.FLOAT64) | ARRAY, floats.tobytes()


def _apply_linear(number: object, edit: Linear) -> float:
    return float(number) * edit.scale + edit.offset  # type: ignore[arg-type]
