"""The digest of a plan, computed from what was read of it: nobody's word is taken for it.

The recipe stands at the message `Plan` of the contract.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from drey.catalog.v1 import catalog_pb2
    from drey.common.v1 import value_pb2
    from drey.restore.v1 import restore_pb2

RECIPE = 3
_NAN = float("nan")
_ARRAY = 64
# data of a Value: (number of the ValueType, format of a scalar's bits or of an array's elements)
_SCALARS = {
    "bool_value": (1, "<Q"),
    "int8_value": (2, "<q"),
    "int16_value": (3, "<q"),
    "int32_value": (4, "<q"),
    "int64_value": (5, "<q"),
    "uint8_value": (6, "<Q"),
    "uint16_value": (7, "<Q"),
    "uint32_value": (8, "<Q"),
    "uint64_value": (9, "<Q"),
}
_ARRAYS = {
    "bool_array": (1, "?"),
    "int8_array": (2, "b"),
    "int16_array": (3, "h"),
    "int32_array": (4, "i"),
    "int64_array": (5, "q"),
    "uint16_array": (7, "H"),
    "uint32_array": (8, "I"),
    "uint64_array": (9, "Q"),
    "float32_array": (10, "f"),
    "float64_array": (11, "d"),
    "enum_array": (12, "H"),
}


def plan_digest(plan: restore_pb2.Plan, items: Iterable[restore_pb2.PlanItem]) -> str:
    """Digest of a plan by all its items, in any order."""
    rows = sorted(items, key=lambda item: item.number)
    digest = hashlib.sha256(_head_bytes(plan, len(rows)))

    def add_column(entry: Callable[[restore_pb2.PlanItem], bytes]) -> None:
        digest.update(b"".join(map(entry, rows)))

    def add_cells(entry: Callable[[restore_pb2.PlanItem], bytes]) -> None:
        entries = list(map(entry, rows))
        digest.update(struct.pack(f"<{len(entries)}I", *map(len, entries)) + b"".join(entries))

    add_column(lambda item: struct.pack("<Q", item.number))
    add_cells(lambda item: item.name.encode())
    add_cells(lambda item: item.address.encode())
    add_cells(lambda item: item.readback_address.encode())
    for name in ("current", "stored", "target", "stored_readback"):
        values = [_value_entries(getattr(item, name)) for item in rows]
        for index in range(8):
            digest.update(b"".join(value[index] for value in values))
        for index in (8, 9):
            entries = [value[index] for value in values]
            digest.update(struct.pack(f"<{len(entries)}I", *map(len, entries)) + b"".join(entries))
    add_column(lambda item: _double_bytes(item.delta if item.HasField("delta") else _NAN))
    add_column(lambda item: _double_bytes(item.deviation if item.HasField("deviation") else _NAN))
    add_column(lambda item: struct.pack("<i", item.stage))
    add_column(lambda item: struct.pack("<B", item.skip))
    add_column(lambda item: _double_bytes(item.tolerance.absolute))
    add_column(lambda item: _double_bytes(item.tolerance.relative))
    add_column(lambda item: _double_bytes(item.readback_tolerance.absolute))
    add_column(lambda item: _double_bytes(item.readback_tolerance.relative))
    add_cells(lambda item: _policy_bytes(item.policy))
    add_cells(lambda item: b"".join(map(_double_bytes, item.ramp_steps)))
    add_cells(lambda item: b"".join(map(_text_bytes, item.enum_labels)))
    add_cells(lambda item: b"".join(map(_text_bytes, item.warnings)))
    add_cells(lambda item: b"".join(map(_source_bytes, item.policy_sources)))
    add_cells(lambda item: item.record.encode())
    return digest.hexdigest()


def _head_bytes(plan: restore_pb2.Plan, items: int) -> bytes:
    spec = plan.spec
    parts = [_text_bytes("drey.restore.v1.Plan"), struct.pack("<I", RECIPE)]
    parts += map(_text_bytes, (plan.id, plan.snapshot_id, plan.undoes_restore_id))
    parts += map(_text_bytes, (plan.actor.principal, spec.comment))
    times = (plan.create_time.ToNanoseconds(), plan.expire_time.ToNanoseconds())
    parts += [struct.pack("<qq", *times), struct.pack("<I", len(spec.guards))]
    parts += map(_guard_bytes, spec.guards)
    parts.append(struct.pack("<I", len(spec.gates)))
    for gate in spec.gates:
        parts.append(struct.pack("<i", gate.after_stage))
        match gate.WhichOneof("condition"):
            case "max_failed":
                parts.append(struct.pack("<Bi", 1, gate.max_failed))
            case "must_hold":
                parts.append(b"\2" + _guard_bytes(gate.must_hold))
            case _:
                parts.append(b"\0")
    back = spec.rollback
    if spec.HasField("rollback"):
        most = back.max_failed if back.HasField("max_failed") else -1
        parts.append(struct.pack("<BiB", 1, most, back.on_guard))
    else:
        parts.append(b"\0")
    return b"".join([*parts, struct.pack("<I", items)])


def _text_bytes(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def _double_bytes(number: float) -> bytes:
    return struct.pack("<d", _one_nan(number))


def _one_nan(number: float) -> float:
    return _NAN if math.isnan(number) else number


def _guard_bytes(guard: restore_pb2.Guard) -> bytes:
    return _text_bytes(guard.expression) + _text_bytes(guard.description)


def _policy_bytes(policy: catalog_pb2.RestorePolicy) -> bytes:
    def duration_ns(name: str, duration: Duration) -> int:
        return duration.ToNanoseconds() if policy.HasField(name) else -1  # type: ignore[arg-type]

    def optional_number(name: str) -> float:
        return getattr(policy, name) if policy.HasField(name) else _NAN  # type: ignore[arg-type]

    allowed = policy.HasField("allowed")
    return b"".join(
        (
            struct.pack("<i", policy.completion),
            struct.pack(
                "<qq", duration_ns("timeout", policy.timeout), duration_ns("settle", policy.settle)
            ),
            struct.pack("<Bi", policy.HasField("stage"), policy.stage),
            _text_bytes(policy.done_channel),
            *(
                _double_bytes(optional_number(name))
                for name in ("done_value", "ramp_rate", "ramp_step")
            ),
            _double_bytes(policy.allowed.low if allowed else _NAN),
            _double_bytes(policy.allowed.high if allowed else _NAN),
        )
    )


def _source_bytes(source: catalog_pb2.PolicySource) -> bytes:
    part = _text_bytes(source.policy_field)
    match source.WhichOneof("source"):
        case "pv":
            return part + b"\2"
        case "device":
            return part + b"\3" + _text_bytes(source.device)
        case "tag":
            return part + b"\4" + _text_bytes(source.tag.group) + _text_bytes(source.tag.tag)
        case "built_in":
            return part + b"\5"
    raise ValueError(f"the source of {source.policy_field} is one that this program does not know")


def _value_entries(value: value_pb2.Value) -> tuple[bytes, ...]:
    """The entries of one value in the ten columns of values.

    Raises `ValueError` for one with what the recipe does not cover.
    """
    if value.alarm_message or value.HasField("user_tag"):
        raise ValueError("a value has an alarm message or a user tag, which the digest leaves out")
    kind, data, payload, label = _data_entries(value)
    if kind == 0:
        return b"\0", b"\0", b"\0", b"\0", bytes(4), bytes(8), bytes(8), bytes(8), b"", b""
    return (
        struct.pack("<B", kind),
        struct.pack("<B", value.state),
        struct.pack("<B", value.origin),
        struct.pack("<B", value.severity),
        struct.pack("<I", value.status),
        struct.pack("<q", value.source_time_ns),
        struct.pack("<q", value.receive_time_ns),
        data,
        payload,
        label,
    )


def _data_entries(value: value_pb2.Value) -> tuple[int, bytes, bytes, bytes]:
    """(type, bits of a scalar, bytes of what is none, label)."""
    name = value.WhichOneof("data")
    nothing = bytes(8)
    match name:
        case None | "unsent":
            return 0, nothing, b"", b""
        case "enum_value":
            enum_value = value.enum_value
            return 12, struct.pack("<Q", enum_value.index), b"", enum_value.label.encode()
        case "string_value":
            return 13, nothing, value.string_value.encode(), b""
        case "raw_string_value":
            return 13, nothing, value.raw_string_value, b""
        case "uint8_array":
            return 6 | _ARRAY, nothing, value.uint8_array, b""
        case "string_array":
            texts = value.string_array
            raws = list(texts.raw_elements) or [text.encode() for text in texts.elements]
            lengths = struct.pack(f"<{len(raws) + 1}I", len(raws), *map(len, raws))
            return 13 | _ARRAY, nothing, lengths + b"".join(raws), b""
        case "float32_value":
            return 10, struct.pack("<fI", _one_nan(value.float32_value), 0), b"", b""
        case "float64_value":
            return 11, _double_bytes(value.float64_value), b"", b""
    if name in _SCALARS:
        kind, form = _SCALARS[name]
        return kind, struct.pack(form, getattr(value, name)), b"", b""
    kind, form = _ARRAYS[name]
    elements = getattr(value, name).elements
    if form in "fd":
        elements = list(map(_one_nan, elements))
    return kind | _ARRAY, nothing, struct.pack(f"<{len(elements)}{form}", *elements), b""
