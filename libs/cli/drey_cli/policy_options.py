"""Options that say how a restore treats PVs: of one PV, of a device, of a tag."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from drey_cli.contracts import catalog_pb2
from drey_cli.errors import usage_error
from drey_cli.options import POLICY, SPAN, choice_of, member_option, packed_options
from drey_cli.render.words import number_of

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What was said of how a restore treats a PV. None: not said."""

    completion: str | None
    timeout: Duration | None
    settle: Duration | None
    stage: int | None
    done_channel: str | None
    done_value: float | None
    ramp_rate: float | None
    ramp_step: float | None
    allowed: str | None

    def fill(self, policy: catalog_pb2.RestorePolicy) -> list[str]:
        """Set what was said in a policy, and keep the rest; the fields that were said.

        Another completion takes the done channel of the one before away.
        """
        said_policy = catalog_pb2.RestorePolicy(
            completion=number_of(catalog_pb2.Completion, self.completion),
            timeout=self.timeout,
            settle=self.settle,
            stage=self.stage,
            done_channel=self.done_channel or "",
            done_value=self.done_value,
            ramp_rate=self.ramp_rate,
            ramp_step=self.ramp_step,
        )
        if self.allowed is not None:
            said_policy.allowed.low, said_policy.allowed.high = _parse_range(self.allowed)
        if said_policy.completion and said_policy.completion != policy.completion:
            policy.ClearField("done_channel")
            policy.ClearField("done_value")
        policy.MergeFrom(said_policy)
        return [field.name for field, _ in said_policy.ListFields()]


def _parse_range(text: str) -> tuple[float, float]:
    """`LOW:HIGH`; an end that is left out is none."""
    low, colon, high = text.partition(":")
    try:
        ends = float(low or "-inf"), float(high or "inf")
    except ValueError:
        ends = math.nan, math.nan
    if not colon or any(map(math.isnan, ends)):
        raise usage_error(
            f"--allowed {text!r} is no range",
            field="--allowed",
            remedy="write it as LOW:HIGH, as in -5:5, or 0: for all that is not negative",
        )
    return ends


_policy = member_option("policy", POLICY)
_span = partial(_policy, type=SPAN, metavar="TIME")
_number = partial(_policy, type=float, metavar="NUMBER")
_COMPLETIONS = choice_of("sent", "put-callback", "readback", "done-channel")
policy_options = packed_options(
    "policy",
    PolicyOptions,
    _policy("--completion", "completion", "How completion is judged.", type=_COMPLETIONS),
    _span("--write-timeout", "timeout", "How long it may take."),
    _span("--settle", "settle", "How long it must stay in tolerance."),
    _policy("--stage", "stage", "Lowest is written first.", type=int, metavar="NUMBER"),
    _policy(
        "--done-channel",
        "done_channel",
        "Says when it is done; .DMOV: that field of the record that is written.",
        metavar="ADDRESS",
    ),
    _number("--done-value", "done_value", "Value for done. Default 1."),
    _number("--ramp-step", "ramp_step", "Largest change at a time, in units of the PV."),
    _number("--ramp-rate", "ramp_rate", "Fastest change, in units per second."),
    _policy(
        "--allowed",
        "allowed",
        "Never written outside of it. 0: is all that is not negative.",
        metavar="LOW:HIGH",
    ),
)
