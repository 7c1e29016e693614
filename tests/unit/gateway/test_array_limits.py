"""Limits of arrays: an extract is never taken for the array, and the last value always comes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey.common.v1 import value_pb2
from drey.monitor.v1.watch_pb2 import Diff
from drey_client.parts import whole_rows
from drey_client.tables import read_values
from drey_client.values import ArrayExtract, value_of
from drey_core.errors import InvalidArgument, Malformed
from drey_core.extracts import EXTRACT_HEAD, ArrayShape, Decimation
from drey_core.values import ARRAY, ELEMENT_DTYPE, EXTRACT, Columns, Kind, State, pack_strings
from drey_core.wire_values import MAX_CHUNK_BYTES
from drey_gateway.domain import rows as rows_module
from drey_gateway.domain.array_limits import MAX_WAIT_S, ArrayLimits, ArrayPacer
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.resume import Token
from drey_gateway.domain.watch import BOTH, Fields, WatchDiff, WatchSelection, WatchState
from drey_runtime.mapping.columns import ColumnsReader
from drey_runtime.mapping.value import from_proto
from drey_testing.fixtures_gateway import catalog_pages, floats, readback, setpoint

FIRST, STRIDE, MIN_MAX = Decimation.FIRST, Decimation.STRIDE, Decimation.MIN_MAX
F8 = int(Kind.FLOAT64) | ARRAY
TEXTS = int(Kind.STRING) | ARRAY
NONE: frozenset[int] = frozenset()


def arrays(channel: int, *values: Any, kind: int = F8) -> Columns:
    """One connected array."""
    columns = Columns.from_values(np.array([channel]), list(values), [kind])
    columns.state[:] = State.CONNECTED
    return columns


def opened(kind: int, raw: bytes) -> tuple[int, int, int, Any]:
    """(total, decimation, step, elements) of an extract."""
    assert kind & EXTRACT and kind & ARRAY
    head = EXTRACT_HEAD.unpack_from(raw)
    return *head, np.frombuffer(raw[EXTRACT_HEAD.size :], ELEMENT_DTYPE[kind & 0x3F])


# --- extracts -----------------------------------------------------------------------------------


@given(
    st.lists(st.floats(width=64) | st.sampled_from([math.nan, math.inf, -0.0]), max_size=200),
    st.integers(1, 40),
    st.sampled_from(Decimation),
)
def test_an_extract_says_what_it_is_of(values, most, decimation):
    most = max(most, 2) if decimation == MIN_MAX else most
    raw = np.array(values, "<f8").tobytes()
    kind, made = ArrayShape(most, decimation).extract_elements(F8, raw)
    if len(values) <= most:
        assert (kind, made) == (F8, raw)
        return
    total, said, step, elements = opened(kind, made)
    assert (total, said) == (len(values), decimation) and 0 < len(elements) <= most
    array = np.array(values)
    if decimation == FIRST:
        assert step == 1
        np.testing.assert_array_equal(elements, array[:most])
    elif decimation == STRIDE:
        assert step == math.ceil(total / most)
        np.testing.assert_array_equal(elements, array[::step])
    else:
        assert step == math.ceil(total / (most // 2))
        for index, (least, greatest) in enumerate(elements.reshape(-1, 2)):
            window = array[index * step : (index + 1) * step]
            numbers = window[~np.isnan(window)]
            if len(numbers):
                assert (least, greatest) == (numbers.min(), numbers.max())
            else:
                assert np.isnan(least) and np.isnan(greatest)


@pytest.mark.parametrize("element", ELEMENT_DTYPE)
@pytest.mark.parametrize("decimation", Decimation)
def test_every_type_of_elements(element, decimation):
    array = (np.arange(100) % 2).astype(ELEMENT_DTYPE[element])
    kind, raw = ArrayShape(10, decimation).extract_elements(element | ARRAY, array.tobytes())
    total, said, step, elements = opened(kind, raw)
    assert total == 100 and len(elements) == 10
    by_stride = decimation == MIN_MAX and element == Kind.ENUM
    assert said == (STRIDE if by_stride else decimation)
    if said == MIN_MAX:
        assert step == 20 and elements.tolist() == [0, 1] * 5
    else:
        assert elements.tolist() == array[:: (1 if said == FIRST else 10)][:10].tolist()


def test_the_smallest_limits_and_the_empty_array():
    array = np.arange(7, dtype="<f8").tobytes()
    assert opened(*ArrayShape(1, STRIDE).extract_elements(F8, array))[2:] == (7, [0.0])
    assert opened(*ArrayShape(1, FIRST).extract_elements(F8, array))[2:] == (1, [0.0])
    total, _, step, pair = opened(*ArrayShape(2, MIN_MAX).extract_elements(F8, array))
    assert (total, step, pair.tolist()) == (7, 7, [0.0, 6.0])
    assert opened(*ArrayShape(3, MIN_MAX).extract_elements(F8, array))[3].tolist() == [0.0, 6.0]
    for decimation in Decimation:
        assert ArrayShape(2, decimation).extract_elements(F8, b"") == (F8, b"")
        assert ArrayShape(2, decimation).extract_elements(TEXTS, pack_strings([])) == (
            TEXTS,
            pack_strings([]),
        )


# --- what is sent -------------------------------------------------------------------------------


class Watched:
    """A watch of some PVs at a gateway, and what its client holds, in rows and in columns."""

    def __init__(self, limits: ArrayLimits, pvs: int = 2, live: LiveState | None = None) -> None:
        if live is None:
            live = LiveState(1)
            pages = catalog_pages(pvs)
            live.take_directory(pages, [], np.array([page.number for page in pages]), 1)
        self.live, self.limits, self.sequence, self.now = live, limits, 0, 0.0
        self.selection = self.select()
        self.state = self.new_state()
        self.held: dict[int, Any] = {}
        self.token = Token(b"", {}, {})

    def new_state(self) -> WatchState:
        selection = self.selection
        channels = np.stack([selection.setpoints, selection.readbacks])
        pacer = ArrayPacer(self.limits, channels) if self.limits.is_paced else None
        return WatchState(selection, None, pacer)

    def select(self) -> WatchSelection:
        live = self.live
        rows = np.arange(len(live.directory))
        return WatchSelection.select_watched(
            rows, live.directory, live.image, Fields.BOTH, 1, self.limits.manner
        )

    def put(self, columns: Columns) -> None:
        self.sequence += 1
        self.live.image.apply_batch(columns, 1, self.sequence)

    def baseline(self) -> list[int]:
        return self.take(self.state.baseline_diff(self.live.image, self.now))

    def diff(self) -> list[int]:
        return self.take(self.state.next_diff(self.live.image, self.now))

    def resume(self) -> list[int]:
        """Another gateway, which knows no more than the token."""
        self.state = self.new_state()
        return self.take(self.state.since_token(self.live.image, self.token, 1, self.now))

    def take(self, change: WatchDiff) -> list[int]:
        """Channels that came."""
        cache = self.live.row_cache(Fields.BOTH)
        rows, shape = self.selection.rows[change.at], self.limits.shape
        sent = b"".join(cache.rows(rows, change.channels, NONE, shape))
        came = []
        for row in whole_rows(Diff.FromString(sent).rows):
            for role, channel in (
                ("setpoint", setpoint(row.number)),
                ("readback", readback(row.number)),
            ):
                if row.HasField(role):
                    came.append(channel)
                    self.held[channel] = value_of(getattr(row, role)).data
        point = {0: (1, self.sequence)}
        self.token = self.state.cut_instant(Token(self.selection.digest, point, point))
        return came


def test_arrays_above_the_limit_come_as_extracts_and_all_else_as_it_is():
    watched = Watched(ArrayLimits(ArrayShape(4, FIRST)))
    watched.put(floats([setpoint(1), readback(1)], [1.0, 2.0]))
    watched.put(arrays(setpoint(2), np.arange(5.0)))
    watched.put(arrays(readback(2), np.arange(4.0)))
    watched.baseline()
    held = watched.held
    assert (held[setpoint(1)], held[readback(1)]) == (1.0, 2.0)
    assert held[readback(2)].tolist() == [0.0, 1.0, 2.0, 3.0]
    extract = held[setpoint(2)]
    assert isinstance(extract, ArrayExtract)
    assert (extract.total, int(extract.decimation), extract.step) == (5, FIRST, 1)
    assert extract.elements.tolist() == [0.0, 1.0, 2.0, 3.0]
    # one that shrinks below the limit is a value again
    watched.put(arrays(setpoint(2), [7.0]))
    assert watched.diff() == [setpoint(2)]
    assert held[setpoint(2)].tolist() == [7.0]


def test_strings_are_decimated_by_stride_and_a_large_extract_comes_in_parts():
    watched = Watched(ArrayLimits(ArrayShape(40_000, MIN_MAX)))
    strings = [b"%040d" % index for index in range(100_000)]
    watched.put(arrays(setpoint(1), strings, kind=TEXTS))
    watched.put(arrays(readback(1), [b"a", b"b"], kind=TEXTS))
    watched.baseline()
    extract = watched.held[setpoint(1)]
    assert (extract.total, int(extract.decimation), extract.step) == (100_000, STRIDE, 3)
    assert [text.encode() for text in extract.elements] == strings[::3]
    assert sum(map(len, strings[::3])) > MAX_CHUNK_BYTES
    assert watched.held[readback(1)] == ["a", "b"]


def test_columns_say_the_same_as_rows_and_mark_what_is_an_extract():
    watched = Watched(ArrayLimits(ArrayShape(2, MIN_MAX)))
    watched.put(arrays(setpoint(1), [3.0, math.nan, 1.0, 2.0]))
    watched.put(arrays(readback(1), [b"x"], kind=TEXTS))
    watched.put(floats([setpoint(2)], [5.0]))
    cache, rows = watched.live.row_cache(Fields.BOTH), watched.selection.rows
    taken = cache.taken_columns(rows, np.full(len(rows), BOTH), NONE, watched.limits.shape)
    (message,) = taken.iterate_chunks()
    columns = Diff.FromString(message).columns
    types = dict(zip(np.frombuffer(columns.channels, "<i8").tolist(), columns.types, strict=True))
    assert types == {setpoint(1): F8 | EXTRACT, readback(1): TEXTS, setpoint(2): 11, readback(2): 0}
    cell = int(np.frombuffer(columns.data, "<u8")[0])
    raw = columns.heap[cell & 0xFFFFFFFF :][: cell >> 32]
    assert EXTRACT_HEAD.unpack_from(raw) == (4, MIN_MAX, 4)
    assert np.frombuffer(raw[EXTRACT_HEAD.size :]).tolist() == [1.0, 3.0]
    # nobody who reads values takes it for one
    with pytest.raises(Malformed, match="extract"):
        ColumnsReader().join_columns(columns)
    with pytest.raises(ValueError, match="does not know"):
        read_values(columns, {})


def test_no_service_takes_an_extract_for_a_value():
    value = value_pb2.Value(extract={"total_elements": 2, "elements": {"float64_array": {}}})
    with pytest.raises(InvalidArgument, match="extract"):
        from_proto(value)


def test_an_extract_is_made_once_for_all_who_have_the_same_limit(monkeypatch):
    made = []

    def extract(shape: ArrayShape, kind: int, raw: bytes) -> tuple[int, bytes]:
        made.append(shape)
        return kind, raw

    monkeypatch.setattr(ArrayShape, "extract_elements", extract)
    watched = Watched(ArrayLimits(ArrayShape(4)))
    cache, rows = watched.live.row_cache(Fields.BOTH), watched.selection.rows
    both, four, five = np.full(len(rows), BOTH), ArrayShape(4), ArrayShape(5)
    for shape in (four, four, five):
        cache.watch_rows(rows, shape)

    def read(shape: ArrayShape) -> None:
        cache.rows(rows, both, NONE, shape)
        cache.taken_columns(rows, both, NONE, shape)

    for turn in (1, 2):
        watched.put(arrays(setpoint(1), np.arange(10.0) + turn))
        for shape in (four, four, five, five):
            read(shape)
        assert made == [four, five] * turn
    # nothing is kept for those who have left, and the whole array is encoded for nobody
    for shape in (four, four, five):
        cache.leave_rows(rows, shape)
    assert not cache._shaped
    cache.watch_rows(rows, four)
    watched.put(floats([setpoint(2)], [1.0]))
    watched.put(arrays(setpoint(1), np.arange(10.0)))
    cache.rows(rows[1:], both[1:], NONE, four)
    assert (cache._as_of[:, 0] < 0).all() and (cache._as_of[:, 1] >= 0).any()


def test_what_is_kept_for_limits_is_bounded(monkeypatch):
    monkeypatch.setattr(rows_module, "SHARED_SHAPES", 2)
    watched = Watched(ArrayLimits(ArrayShape(4)))
    cache, rows = watched.live.row_cache(Fields.BOTH), watched.selection.rows
    watched.put(arrays(setpoint(1), np.arange(10.0)))
    both, shapes = np.full(len(rows), BOTH), [ArrayShape(most) for most in (2, 3, 4)]
    for shape in shapes:
        cache.watch_rows(rows, shape)
    for shape in shapes:
        sent = Diff.FromString(b"".join(cache.rows(rows, both, NONE, shape)))
        elements = sent.rows[0].setpoint.extract.elements.float64_array.elements
        assert 0 < len(elements) <= shape.max_elements
    assert [bool(cache._shaped[shape].rows) for shape in shapes] == [True, True, False]


# --- how often ----------------------------------------------------------------------------------


def test_an_array_waits_for_its_time_and_the_last_value_comes():
    watched = Watched(ArrayLimits(min_interval_s=1.0))
    watched.put(arrays(setpoint(1), [0.0, 0.0]))
    watched.baseline()
    came = []
    for tenth in range(1, 25):
        watched.now = tenth / 10
        watched.put(arrays(setpoint(1), [tenth, 0.0]))
        watched.put(floats([readback(1)], [tenth]))
        came.append(watched.diff())
    assert all(readback(1) in channels for channels in came)
    assert [at for at, channels in enumerate(came, 1) if setpoint(1) in channels] == [10, 20]
    assert watched.state.next_due() == 3.0
    watched.now = 2.95
    assert watched.diff() == []
    watched.now = 3.0
    change = watched.state.next_diff(watched.live.image, watched.now)
    assert change.merged == 3  # 21 to 24, of which the last one comes
    assert watched.take(change) == [setpoint(1)]
    assert watched.held[setpoint(1)].tolist() == [24.0, 0.0]
    assert watched.state.next_due() == math.inf


def test_an_alarm_and_another_type_do_not_wait():
    watched = Watched(ArrayLimits(min_interval_s=1000.0))
    watched.put(arrays(setpoint(1), [0.0, 0.0]))
    watched.baseline()
    alarm = arrays(setpoint(1), [1.0, 0.0])
    alarm.severity[:] = 2
    for columns in (
        alarm,
        arrays(setpoint(1), [2.0, 0.0]),
        arrays(setpoint(1), [1, 2], kind=int(Kind.INT32) | ARRAY),
        floats([setpoint(1)], [1.0]),
        floats([setpoint(1)], [2.0]),
    ):
        watched.put(columns)
        assert watched.diff() == [setpoint(1)]
    lost = floats([setpoint(1)], [2.0])
    lost.state[:] = State.DISCONNECTED
    watched.put(lost)
    assert watched.diff() == [setpoint(1)]


def test_arrays_take_no_more_bytes_than_there_are():
    watched = Watched(ArrayLimits(ArrayShape(100), bytes_per_s=1000))
    waves = [setpoint(1), setpoint(2)]
    for channel in waves:
        watched.put(arrays(channel, np.zeros(1000)))
    watched.baseline()
    sent = 0
    for tenth in range(200):
        watched.now = tenth / 10
        for channel in waves:
            watched.put(arrays(channel, np.full(1000, float(tenth))))
        sent += 800 * len(watched.diff())
    assert 17_000 < sent < 22_000
    watched.now += MAX_WAIT_S
    assert sorted(watched.diff()) == waves and watched.state.next_due() == math.inf


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "read", "wait", "resume", "reselect", "scalar"]),
        st.integers(1, 3),
        st.sampled_from([0.05, 0.4, 1.5]),
    ),
    max_size=40,
)
LIMITS = st.sampled_from(
    [
        ArrayLimits(ArrayShape(2, FIRST), min_interval_s=1.0),
        ArrayLimits(bytes_per_s=40),
        ArrayLimits(ArrayShape(2, MIN_MAX), min_interval_s=0.3, bytes_per_s=100),
        ArrayLimits(ArrayShape(3, STRIDE)),
    ]
)


def first_of(held: Any) -> float:
    elements = held.elements if isinstance(held, ArrayExtract) else held
    return float(np.ravel(elements)[0])


@given(LIMITS, STEPS)
@settings(max_examples=60)
def test_never_an_older_value_and_the_last_one_in_the_end(limits, steps):
    """Arrays of one number that only grows, at times scalars; resumed from any token in between."""
    watched = Watched(limits, pvs=3)
    truth = {}
    for pv in (1, 2, 3):
        truth[setpoint(pv)], truth[readback(pv)] = 0.0, 0.0
        watched.put(arrays(setpoint(pv), np.zeros(4)))
        watched.put(floats([readback(pv)], [0.0]))
    watched.baseline()

    def check(came: list[int]) -> None:
        for channel in came:
            assert first_of(watched.held[channel]) >= told.get(channel, 0.0)
            told[channel] = first_of(watched.held[channel])
        waiting = watched.state.next_due() < math.inf
        for channel, value in truth.items():
            assert told.get(channel, 0.0) == value or waiting, channel

    told: dict[int, float] = {}
    for count, (step, pv, seconds) in enumerate(steps, 1):
        if step == "put":
            watched.put(arrays(setpoint(pv), np.full(4, float(count))))
            truth[setpoint(pv)] = float(count)
        elif step == "scalar":
            for channel in (setpoint(pv), readback(pv)):
                watched.put(floats([channel], [float(count)]))
                truth[channel] = float(count)
        elif step == "read":
            check(watched.diff())
        elif step == "wait":
            watched.now += seconds
        elif step == "resume":
            check(watched.resume())
            assert all(told.get(channel, 0.0) == value for channel, value in truth.items())
        else:
            now, directory = watched.now, watched.live.directory
            watched.state.reselect_rows(
                watched.selection, watched.live.image, directory, directory, now
            )
    # all is quiet: what is due comes when it is due, and then nothing is missing
    check(watched.diff())
    for _ in range(20):
        if watched.state.next_due() == math.inf:
            break
        watched.now = watched.state.next_due()
        check(watched.diff())
    assert all(told.get(channel, 0.0) == value for channel, value in truth.items())
