"""What a verdict means for one PV, and what to do, in words: by what was seen of it afterwards."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from enum import IntEnum

import numpy as np

from drey_core.compare import DifferenceClass, compare
from drey_core.values import I8, Kind, State
from drey_restore.domain.execution import ECA_NORMAL
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import Skip, Verdict


class SetpointSeen(IntEnum):
    """Where the setpoint stood when it was read afterwards."""

    NOTHING = 0
    TARGET = 1
    OTHER = 2
    NOT_LOOKED = 3


def explain_rows(items: PlanItems, outcome: Outcome, rows: I8, held: Collection[int]) -> list[str]:
    """A sentence or more for each of `rows`; `held`: numbers of PVs that may still be written."""
    seen = outcome.seen.take_rows(rows)
    cls = compare(
        items.target.take_rows(rows), seen, items.absolute[rows], items.relative[rows]
    ).cls
    at_target = np.isin(cls, (DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE))
    place = np.where(
        seen.kind == Kind.NONE,
        np.where(seen.state == State.ABSENT, SetpointSeen.NOT_LOOKED, SetpointSeen.NOTHING),
        np.where(at_target, SetpointSeen.TARGET, SetpointSeen.OTHER),
    )
    columns = zip(
        outcome.verdict[rows].tolist(),
        place.tolist(),
        outcome.readback_reached[rows].tolist(),
        outcome.moving[rows].tolist(),
        np.isin(items.number[rows], list(held)).tolist(),
        strict=True,
    )
    texts = [_explain_row(*row) for row in columns]
    refused = ~np.isin(outcome.code[rows], (0, ECA_NORMAL))
    for index in np.flatnonzero(refused & (outcome.verdict[rows] == Verdict.RAMP_STOPPED)).tolist():
        texts[index] = f"A step was not completed: see the status. {texts[index]}"
    for index in np.flatnonzero(items.skip[rows] == Skip.POLICY).tolist():
        why = "; ".join(items.warnings.get(int(rows[index]), ()))
        texts[index] = f"The plan left it out, and nothing was sent: {why}."
    for index in np.flatnonzero(outcome.interferences[rows]).tolist():
        texts[index] += " " + _interference_text(items, outcome, int(rows[index]))
    return texts


def _interference_text(items: PlanItems, outcome: Outcome, row: int) -> str:
    changed_to, times = outcome.interference, int(outcome.interferences[row])
    when = datetime.fromtimestamp(int(changed_to.receive_time[row]) / 1e9, UTC)
    value = changed_to.value(row)
    labels = items.labels(row)
    if changed_to.kind[row] == Kind.ENUM and int(value) < len(labels):
        value = labels[int(value)].decode(errors="replace")
    shown = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    again = f", and {times - 1} more times" if times > 1 else ""
    return (
        f"Interference: at {when:%H:%M:%S.%f UTC} somebody else, or logic of its IOC, changed it to"
        f" {shown:.60}{again}."
    )


def _explain_row(verdict: int, seen: int, reached: int, moving: int, held: bool) -> str:
    """`reached` and `moving` as in `Outcome`."""
    if verdict in _SENT_TEXTS:
        parts = [
            _SENT_TEXTS[Verdict(verdict)],
            _setpoint_text(verdict, seen),
            _readback_text(reached, moving),
        ]
        parts.append(_advice_text(verdict, seen, reached, moving, held))
        return " ".join(part for part in parts if part)
    return _OTHER_TEXTS[Verdict(verdict)]


_SENT_TEXTS = {
    Verdict.WRITTEN: "Written, and the IOC said that it was done.",
    Verdict.VERIFIED: "Done: written, and a read afterwards showed the target.",
    Verdict.NOT_REACHED: "Written, and the IOC said that it was done.",
    Verdict.IN_ALARM: "Written, and the IOC said that it was done. The setpoint shows the target,"
    " with an alarm worse than that of the stored value.",
    Verdict.TIMED_OUT: "Sent; the IOC did not say in time that it was done.",
    Verdict.RAMP_STOPPED: "Its ramp stopped on the way, and the target was not reached.",
    Verdict.UNKNOWN: "It was about to be sent; whether it was is not known.",
}
_OTHER_TEXTS = {
    Verdict.UNSPECIFIED: "",
    Verdict.PENDING: "Its turn has not come yet.",
    Verdict.EQUAL_ALREADY: "It had the value when the plan was made; nothing was sent.",
    Verdict.NO_LONGER_EQUAL: "It had the value when the plan was made, so nothing was sent. The"
    " read at the end showed another value, a new alarm or nothing: look who, then plan again.",
    Verdict.REFUSED: "The IOC refused it and it was not written: see the status for the reason.",
    Verdict.DISCONNECTED: "It was not connected, or did not answer; nothing was sent."
    " Look at its IOC, then make a new plan.",
    Verdict.SKIPPED: "The plan left it out; nothing was sent.",
    Verdict.NOT_SENT: "Nothing was sent: the restore ended before its turn."
    " Make a new plan for what is left, or resume the restore where it was interrupted.",
}


def _setpoint_text(verdict: int, seen: int) -> str:
    if verdict in (Verdict.VERIFIED, Verdict.IN_ALARM):
        return ""
    if seen == SetpointSeen.NOTHING:
        return "The setpoint could not be read afterwards."
    if seen == SetpointSeen.NOT_LOOKED:
        return "The restore ended before the setpoint was read again."
    if seen == SetpointSeen.TARGET:
        return "The setpoint shows the target."
    return "The setpoint shows another value."


def _readback_text(reached: int, moving: int) -> str:
    if reached == 1:
        return "The readback is where it was in the snapshot."
    if reached == 0:
        still = {1: ", and still moves", 0: ", and stands still"}.get(moving, "")
        return f"The readback is not where it was in the snapshot{still}."
    return ""


def _advice_text(verdict: int, seen: int, reached: int, moving: int, held: bool) -> str:
    if held:
        return (
            "The write may still take place. The PV is held until its IOC answers: look at the IOC,"
            " and do not write it by other means."
        )
    if verdict == Verdict.RAMP_STOPPED:
        return "Look at the device, then make a new plan: it ramps on from where it stands."
    if verdict == Verdict.IN_ALARM:
        return "Look at its alarm: the device may not have taken the value."
    if reached == 0 and moving == 1:
        return "Wait until it stands, then compare again."
    if seen == SetpointSeen.NOTHING:
        return "Look at its IOC, then compare again."
    if seen == SetpointSeen.NOT_LOOKED:
        return "Compare again."
    if seen == SetpointSeen.OTHER and verdict == Verdict.NOT_REACHED:
        return "The record clipped it, or somebody else wrote: look who."
    if seen == SetpointSeen.OTHER:
        return "It cannot take place any more: make a new plan."
    if reached == 0:
        return "Look at the device."
    if verdict == Verdict.TIMED_OUT:
        return "It is done as far as values show; give more time to devices as slow as this."
    return ""
