"""The comparisons that somebody watches: one for all who watch the same, ended with the last."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import numpy as np
from opentelemetry.metrics import CallbackOptions, Observation

from drey_core.errors import ResourceExhausted
from drey_core.selector import Selector
from drey_core.stored_choice import Chooser, refuse_unknown
from drey_core.values import I8
from drey_gateway.adapters.references import ReferenceClient
from drey_gateway.context import WatchContext
from drey_gateway.domain.drift import DriftCounts, DriftTable, DriftWanted, Reference
from drey_gateway.domain.resume import encode_token
from drey_gateway.domain.watch import WatchSelection
from drey_gateway.loops.event_feed import EventFeed
from drey_runtime import telemetry
from drey_runtime.admission import Room
from drey_runtime.auth import current_principal
from drey_runtime.event_log import Resource
from drey_runtime.mapping.selector import selector_to_proto
from drey_runtime.waiting import ChangeSignal, choose_off_loop

LOOK_S = 0.2
"""Between two looks at what has changed."""
_MOMENT_S = 0.02
"""Signs of life made within so long of each other are one."""
_PAUSES = 4
"""Times as long as a look is the pause after it at least."""
MAX_COMPARISONS = 16
"""Of different references, tolerances or hysteresis at a time: each holds its reference, and the
place of the key that began it."""


class WatchedDrift:
    """One table, those who wait for it, and what they share."""

    def __init__(self, table: DriftTable, place: ExitStack) -> None:
        self.table, self.place = table, place
        self.changed = ChangeSignal()
        self.names: Counter[str] = Counter()
        """What its watchers call the reference."""
        self.told: DriftCounts | None = None
        """Of all its PVs, as of the last look; for metrics."""
        self._messages: dict[tuple[bytes, int], list[bytes]] = {}
        self._messages_turn = -1
        self._tokens: dict[bytes, str] = {}
        self._tokens_instant = -1
        self._signs: dict[tuple[str, frozenset[int]], bytes] = {}
        self._signs_end = 0.0

    def encoded_messages(self) -> dict[tuple[bytes, int], list[bytes]]:
        """Messages made in this turn of the table, by selection and the turn that they follow."""
        if self._messages_turn != self.table.turn:
            self._messages_turn, self._messages = self.table.turn, {}
        return self._messages

    def token(self, selection: WatchSelection) -> str:
        """Where a watcher stands that has been sent all that the table has, encoded."""
        if self._tokens_instant != self.table.instant:
            self._tokens_instant, self._tokens = self.table.instant, {}
        token = self._tokens.get(selection.digest)
        if token is None:
            token = self._tokens[selection.digest] = encode_token(self.table.token(selection))
        return token

    def signs_of_life(self) -> dict[tuple[str, frozenset[int]], bytes]:
        """Checkpoints made in this moment, by token and shards."""
        now = time.monotonic()
        if now >= self._signs_end:
            self._signs_end, self._signs = now + _MOMENT_S, {}
        return self._signs


class DriftBook:
    """All comparisons. `run` keeps them at the present."""

    def __init__(
        self,
        context: WatchContext,
        references: ReferenceClient,
        events: EventFeed,
        share: float = 1.0,
    ) -> None:
        self._context, self._client, self._events = context, references, events
        self._comparisons: dict[tuple[str, int, float], WatchedDrift] = {}
        self._room = Room(
            "comparisons with references, tolerances and hysteresis of their own",
            MAX_COMPARISONS,
            share,
        )
        self._references: dict[bytes, tuple[int, Reference]] = {}
        """By encoded state: as of which `golden_generation`, and the snapshot."""
        self._reading = asyncio.Lock()
        self.golden_generation = 0
        """Grows when a golden mark may have moved."""
        telemetry.meter.create_observable_gauge(
            "drey.drift.pvs",
            callbacks=[self._observe_gauge],
            unit="1",
            description="PVs by how they compare with a reference that is watched",
        )

    def __len__(self) -> int:
        return len(self._comparisons)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_comparing())
            group.create_task(self._follow_marks())

    @asynccontextmanager
    async def hold_comparison(self, wanted: DriftWanted) -> AsyncIterator[WatchedDrift]:
        """The comparison that is wanted, kept up meanwhile. Raises `DreyError`."""
        reference = await self.read_reference(wanted)
        key = reference.snapshot_id, int(wanted.tolerances), wanted.hysteresis
        comparison = self._comparisons.get(key)
        if comparison is None:
            comparison = self._comparisons[key] = self._begin_comparison(reference, wanted)
        comparison.names[wanted.reference_text] += 1
        try:
            yield comparison
        finally:
            comparison.names[wanted.reference_text] -= 1
            comparison.names += Counter()  # those that nobody uses any more go
            if not comparison.names:
                del self._comparisons[key]
                comparison.place.close()
                self._forget_references()

    def _begin_comparison(self, reference: Reference, wanted: DriftWanted) -> WatchedDrift:
        try:
            with ExitStack() as place:
                key_id = current_principal.get().key_id
                place.enter_context(self._room.take_place(key_id, "this key"))
                live = self._context.live
                table = DriftTable(reference, live, wanted.tolerances, wanted.hysteresis)
                return WatchedDrift(table, place.pop_all())
        except ResourceExhausted:
            self._forget_references()
            raise

    async def read_reference(self, wanted: DriftWanted) -> Reference:
        """Which snapshot the reference is now. Raises as `ReferenceClient.read_reference`."""
        async with self._reading:
            generation = self.golden_generation
            as_of, held_reference = self._references.get(wanted.reference, (-1, None))
            if held_reference is not None and (as_of == generation or not wanted.golden):
                return held_reference
            known_references = {each.snapshot_id: each for _, each in self._references.values()}
            likely = held_reference.snapshot_id if held_reference is not None else ""
            held_reference = await self._client.read_reference(
                wanted.reference, known_references, likely
            )
            self._references[wanted.reference] = (generation, held_reference)
            return held_reference

    def _forget_references(self) -> None:
        used = {id(comparison.table.reference) for comparison in self._comparisons.values()}
        for state, (_, reference) in list(self._references.items()):
            if id(reference) not in used:
                del self._references[state]

    async def choose_rows(
        self, selector: Selector | None, reference: Reference, *, strict: bool
    ) -> I8 | None:
        """Rows of the reference that a selector chooses, as in a comparison; None: all.

        `strict`: `NotFound` for what the reference has not.
        """
        if selector is None:
            return None
        asked: dict[Selector, tuple[I8, list[str]]] = {}
        nothing = np.zeros(0, np.int64), list[str]()
        # what only the catalog knows is asked for before: the choice itself does not wait
        Chooser(reference.selector_index, lambda each: asked.setdefault(each, nothing)).choose_rows(
            selector
        )
        for each in asked:
            asked[each] = await self._context.resolver.resolve_selector(
                selector_to_proto(each), True
            )
        chooser = Chooser(reference.selector_index, asked.__getitem__)
        choose = partial(chooser.choose_rows, selector, "spec.selector")
        mask = await choose_off_loop(choose, takes_long=selector.takes_long)
        if strict:
            refuse_unknown(chooser.not_found, "the reference", field="spec.selector")
        return np.flatnonzero(mask)

    def advance_comparison(self, comparison: WatchedDrift) -> None:
        """Compare what has changed, at once, and wake who waits."""
        table = comparison.table
        if table.advance_classes(frozenset(self._context.stale())):
            comparison.told = table.counts(table.select_rows(None))
            comparison.changed.notify_change()

    async def _keep_comparing(self) -> None:
        catalog_version = 0
        while True:
            changed = self._context.changed.listen_for_change()
            begin = time.perf_counter()
            for comparison in list(self._comparisons.values()):
                self.advance_comparison(comparison)
                if self._context.live.catalog_version != catalog_version:
                    comparison.changed.notify_change()
                await asyncio.sleep(0)
            catalog_version = self._context.live.catalog_version
            took = time.perf_counter() - begin
            telemetry.loop_seconds.record(took, {"loop": "drift"})
            # where nearly everything differs and moves, less often, so that others get their turn
            await asyncio.sleep(max(LOOK_S, _PAUSES * took))
            await changed.wait()

    async def _follow_marks(self) -> None:
        """Notice that golden marks move; where that may have been missed, they have."""
        timeline, position = "", self._events.end
        while True:
            changed = self._events.changed.listen_for_change()
            events = self._events.events_after(position)
            anew = events is None or timeline != self._events.timeline
            moved = any(e.change.resource == Resource.GOLDEN for e in events or ())
            timeline = self._events.timeline
            position = self._events.end if anew or not events else events[-1].position
            if anew or moved:
                self.golden_generation += 1
                for comparison in self._comparisons.values():
                    comparison.changed.notify_change()
            if not anew and events:
                continue
            await changed.wait()

    def _observe_gauge(self, _options: CallbackOptions) -> Iterator[Observation]:
        """Called by the thread that sends metrics."""
        for comparison in list(self._comparisons.values()):
            counts, table = comparison.told, comparison.table
            if counts is None:
                continue
            for name in list(comparison.names):
                for state, count in (
                    ("different", counts.summary.pvs_different),
                    ("unknown", counts.summary.pvs_unknown),
                    ("same", counts.summary.pvs_same),
                    ("stale", counts.stale),
                ):
                    yield Observation(
                        count,
                        {
                            "reference": name,
                            "state": state,
                            "tolerances": table.tolerances.name.lower(),
                            "hysteresis": table.hysteresis,
                        },
                    )
