"""What must hold while a restore writes, as people type it: `SR:CURRENT < 0.1 and MODE == "MD"`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from drey_cli.contracts import restore_pb2
from drey_cli.errors import usage_error
from drey_cli.options import COUNT, GATES, member_option, packed_options

_CEL = re.compile(r"\b(pv|setpoint)\s*\[")
_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w:]))
    |(?P<setpoint>setpoint\(\s*(?P<of>[^()\s]+)\s*\))
    |(?P<call>[A-Za-z_]\w*(?=\())
    |(?P<name>[A-Za-z_](?:[\w:.$]|-(?=[\w:.$]))*)
    |(?P<sign>&&|\|\||[<>=!]=|[-+*/%()<>!,\[\]?:])""",
    re.VERBOSE,
)
_WORDS = {"and": "&&", "or": "||", "not": "!", "true": "true", "false": "false", "in": "in"}


@dataclass(frozen=True)
class PlanRules:
    """What must hold, and when it goes back, as typed."""

    guards: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    rollback_after: int | None = None
    rollback_on_guard: bool = False

    def add_to(self, spec: restore_pb2.PlanSpec) -> None:
        """Fill in the fields of a specification."""
        spec.guards.extend(parse_guard(text, "--guard") for text in self.guards)
        spec.gates.extend(map(stage_gate, self.gates))
        if self.rollback_after is not None or self.rollback_on_guard:
            spec.rollback.on_guard = self.rollback_on_guard
            if self.rollback_after is not None:
                spec.rollback.max_failed = self.rollback_after


_option = member_option("rules", GATES)
rules_options = packed_options(
    "rules",
    PlanRules,
    _option(
        "--guard",
        "guards",
        "Must hold before and while it writes; else nothing more is sent. Names of PVs,"
        " comparisons, and, or, not; or an expression of CEL. Repeatable.",
        multiple=True,
        metavar="CONDITION",
    ),
    _option(
        "--gate",
        "gates",
        "After a stage, before the next: STAGE=NUMBER, so many of its writes may not be verified"
        " (0: none), or STAGE=CONDITION, which is waited for. Repeatable.",
        multiple=True,
        metavar="STAGE=RULE",
    ),
    _option(
        "--rollback-after",
        "rollback_after",
        "Go back on its own after more failed writes than this.",
        type=COUNT,
        metavar="NUMBER",
    ),
    _option(
        "--rollback-on-guard",
        "rollback_on_guard",
        "Go back on its own when a guard breaks.",
        is_flag=True,
    ),
)


def parse_guard(text: str, option: str) -> restore_pb2.Guard:
    """A condition; what was typed describes it where it was not an expression of CEL."""
    expression = to_cel(text, option)
    return restore_pb2.Guard(
        expression=expression, description="" if expression == text else text.strip()
    )


def stage_gate(text: str) -> restore_pb2.StageGate:
    """`0=0`: every write of stage 0 is verified; `1=SR:VACUUM < 1e-7`: it holds after stage 1."""
    stage, equals, rule = text.partition("=")
    try:
        if not equals or rule.startswith("="):
            raise ValueError
        after_stage = int(stage)
    except ValueError:
        raise usage_error(
            f"--gate: {text!r} names no stage",
            field="--gate",
            remedy="write STAGE=NUMBER or STAGE=CONDITION, as 0=0 or '1=SR:VACUUM < 1e-7'",
        ) from None
    if rule.strip().isdigit():
        return restore_pb2.StageGate(after_stage=after_stage, max_failed=int(rule))
    return restore_pb2.StageGate(after_stage=after_stage, must_hold=parse_guard(rule, "--gate"))


def to_cel(text: str, option: str) -> str:
    """A condition as CEL: names of PVs in `pv["..."]`, `and`, `or` and `not` as signs."""
    if _CEL.search(text):
        return text
    parts: list[str] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise usage_error(
                f"{option}: {text!r} is not understood at {text[place:]!r}",
                field=option,
                remedy='write it as SR:CURRENT < 0.1 and MODE == "MD"; a name with other'
                ' characters as pv["..."]',
            )
        parts.append(_as_cel(match))
        place = match.end()
    return "".join(parts).strip()


def _as_cel(match: re.Match[str]) -> str:
    token = match[0]
    if match["setpoint"]:
        return f"setpoint[{_quote_name(match['of'])}]"
    if match["name"]:
        return _WORDS.get(token) or f"pv[{_quote_name(token)}]"
    return token


def _quote_name(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def rules_text(spec: restore_pb2.PlanSpec) -> Sequence[tuple[str, str]]:
    """The rules of a plan, for people: (name, text) of each."""
    rules = [("guard", _guard_text(each)) for each in spec.guards]
    for gate in spec.gates:
        rule = (
            f"at most {gate.max_failed} not verified"
            if gate.HasField("max_failed")
            else _guard_text(gate.must_hold)
        )
        rules.append((f"after stage {gate.after_stage}", rule))
    if spec.HasField("rollback"):
        when = ["when a guard breaks"] if spec.rollback.on_guard else []
        if spec.rollback.HasField("max_failed"):
            when.append(f"after more than {spec.rollback.max_failed} failures")
        rules.append(("goes back", " or ".join(when)))
    return rules


def _guard_text(guard: restore_pb2.Guard) -> str:
    return guard.description or guard.expression
