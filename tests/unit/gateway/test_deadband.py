"""Dead-bands: what is held is never further off, and what is no number passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.values import Columns, Kind, State
from drey_gateway.domain.deadband import Deadband, DeadbandFilter
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.watch import Fields, WatchDiff, WatchSelection, WatchState
from drey_testing.fixtures_gateway import catalog_pages, floats, name_of, readback, setpoint

BANDS = st.sampled_from(
    [Deadband(absolute=1.0), Deadband(relative=0.1), Deadband(tolerances=2.0), Deadband()]
)
NUMBERS = st.floats(-10, 10) | st.sampled_from([float("nan"), float("inf"), -0.0])
STEPS = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=1, max_size=8)
CHANNELS = [setpoint(1), readback(1), setpoint(2), readback(2)]


class Watched:
    """A watch of two PVs, and what its client holds."""

    def __init__(self, band: Deadband) -> None:
        self.live = LiveState(1)
        pages = catalog_pages(2)
        for page in pages:
            page.absolute[:], page.relative[:] = 0.5, 0.01
        numbers = np.array([page.number for page in pages])
        self.live.take_directory(pages, [], numbers, 1)
        self.band, self.sequence = band, 0
        self.selection = self.select()
        channels = np.stack([self.selection.setpoints, self.selection.readbacks])
        sieve = DeadbandFilter(band, channels, self.selection.rows, self.live.directory)
        self.state = WatchState(self.selection, sieve)
        self.held: dict[int, tuple[float, int]] = {}

    def select(self) -> WatchSelection:
        directory = self.live.directory
        rows = np.arange(len(directory))
        return WatchSelection.select_watched(rows, directory, self.live.image, Fields.BOTH, 1)

    def put(self, columns: Columns) -> None:
        self.sequence += 1
        self.live.image.apply_batch(columns, 1, self.sequence)

    def take(self, change: WatchDiff) -> list[int]:
        sent = []
        for bit, channels in ((1, self.selection.setpoints), (2, self.selection.readbacks)):
            sent += channels[change.at[(change.channels & bit) > 0]].tolist()
        for channel in sent:
            self.held[channel] = self.now(channel)
        return sent

    def now(self, channel: int) -> tuple[float, int]:
        columns = self.live.image.columns_of_channels(np.array([channel]))
        return float(columns.data.view("<f8")[0]), int(columns.severity[0])

    def check(self) -> None:
        for channel in CHANNELS:
            (held, held_severity), (value, severity) = self.held[channel], self.now(channel)
            assert held_severity == severity
            if np.isnan(held) or np.isnan(value) or held == value:
                assert held == value or (np.isnan(held) and np.isnan(value))
                continue
            absolute = self.band.absolute + self.band.tolerances * 0.5
            relative = self.band.relative + self.band.tolerances * 0.01
            assert abs(value - held) <= absolute + relative * abs(held)


@given(BANDS, STEPS, st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_what_is_held_is_within_the_band(band, steps, severities):
    watched = Watched(band)
    watched.put(floats(CHANNELS, [0.0] * 4))
    watched.take(watched.state.baseline_diff(watched.live.image))
    for values, severity in zip(steps, severities, strict=False):
        columns = floats(CHANNELS, values)
        columns.severity[:] = severity
        watched.put(columns)
        watched.take(watched.state.next_diff(watched.live.image))
        watched.check()


def test_a_value_that_creeps_is_sent_when_it_has_gone_too_far():
    watched = Watched(Deadband(absolute=1.0))
    watched.put(floats(CHANNELS, [0.0] * 4))
    watched.take(watched.state.baseline_diff(watched.live.image))
    sent = []
    for tenth in range(1, 40):
        watched.put(floats([setpoint(1)], [tenth / 10]))
        change = watched.state.next_diff(watched.live.image)
        assert change.merged == 0
        sent += [tenth] if watched.take(change) else []
    assert sent == [11, 22, 33]


@pytest.mark.parametrize("kind", [Kind.STRING, Kind.ENUM, Kind.BOOL])
def test_what_is_no_number_always_passes(kind):
    watched = Watched(Deadband(absolute=100.0))

    def put(value: object) -> None:
        columns = Columns.from_values(np.array([setpoint(1)]), [value], [int(kind)])
        columns.state[:] = State.CONNECTED
        watched.put(columns)

    first, second = (b"a", b"b") if kind == Kind.STRING else (0, 1)
    put(first)
    watched.state.baseline_diff(watched.live.image)
    put(second)
    assert len(watched.state.next_diff(watched.live.image).at) == 1


def test_a_new_name_passes_though_it_came_before_the_baseline_was_taken():
    watched = Watched(Deadband(absolute=10.0))
    watched.put(floats(CHANNELS, [0.0] * 4))
    before, pages = watched.live.directory, catalog_pages(2)
    for page in pages:
        page.names[:] = ["MAGNET" if name == name_of(1) else name for name in page.names]
    watched.live.take_directory(pages, [], watched.live.pages, 2)
    watched.take(watched.state.baseline_diff(watched.live.image))  # of the directory of before
    selection, old = watched.select(), watched.selection
    assert selection.digest != old.digest
    image, now = watched.live.image, watched.live.directory
    left, moved, told = watched.state.reselect_rows(selection, image, before, now)
    assert (left.tolist(), moved.tolist(), told.tolist()) == ([], [], [0])


def test_a_narrower_tolerance_sends_what_is_too_far_off_now():
    watched = Watched(Deadband(tolerances=10.0))
    watched.put(floats(CHANNELS, [0.0] * 4))
    watched.take(watched.state.baseline_diff(watched.live.image))
    watched.put(floats(CHANNELS, [4.0] * 4))
    assert not watched.take(watched.state.next_diff(watched.live.image))
    pages = catalog_pages(2)
    for page in pages:
        page.absolute[:] = 0.1
    before = watched.live.directory
    watched.live.take_directory(pages, [], watched.live.pages, 2)
    watched.selection = watched.select()
    watched.state.reselect_rows(
        watched.selection, watched.live.image, before, watched.live.directory
    )
    assert sorted(watched.take(watched.state.next_diff(watched.live.image))) == sorted(CHANNELS)
