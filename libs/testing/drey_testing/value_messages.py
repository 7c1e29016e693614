"""Values as messages one by one, to compare what is sent in bulk with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drey.common.v1 import value_pb2
from drey_core.values import Columns, pack_heap
from drey_core.wire_values import Labels, encode_values
from drey_runtime.mapping.value import from_proto


def to_proto(
    columns: Columns, row: int, labels: Labels | None = None, freshness: int = 0
) -> value_pb2.Value:
    """One row as a message; `labels` is asked by the row's key, the channel number."""
    (encoded,) = encode_values(columns.take_rows(np.array([row])), freshness, labels=labels)
    return value_pb2.Value.FromString(encoded)


def columns_from_proto(keys: Sequence[int], values: Sequence[value_pb2.Value]) -> Columns:
    """Columns of whole values as they came, keyed by `keys`; raises as `from_proto`."""
    cells = [from_proto(value) for value in values]
    rows = [row for row, (_, data) in enumerate(cells) if isinstance(data, bytes)]
    out = Columns.empty_columns(len(values))
    out.data[:] = [0 if isinstance(data, bytes) else data for _, data in cells]
    out.data[rows], heap = pack_heap([data for _, data in cells if isinstance(data, bytes)])
    out.kind[:] = [kind for kind, _ in cells]
    for row, value in enumerate(values):
        out.state[row], out.origin[row] = value.state, value.origin
        out.severity[row] = max(value.severity - 1, 0)
        out.status[row] = max(value.status - 1, 0)
        out.source_time[row] = value.source_time_ns
        out.receive_time[row] = value.receive_time_ns
    return replace(out, key=np.array(keys, np.int64), heap=heap)
