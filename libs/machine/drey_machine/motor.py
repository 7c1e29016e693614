"""A `motor` record type made at run time out of base's `ao`, so that `X.RBV` and `X.DMOV` exist.

EPICS base has no motor record, and its sources need a compiler. The type declared here begins
with the fields of `ao`, in its order (record support reads them by position and by offset), and
adds a few behind them that `ao`'s code never touches. Ordinary records do the motion.
"""

import ctypes
import re
from pathlib import Path
from typing import Any

# behind the fields of `ao`: name, type, initial value, bytes
_ADDED = (
    ("RBV", "DOUBLE", "0", 8),
    ("VELO", "DOUBLE", "1", 8),
    ("DMOV", "SHORT", "1", 2),
    ("MOVN", "SHORT", "0", 2),
)


class _List(ctypes.Structure):
    _fields_ = (("first", ctypes.c_void_p), ("last", ctypes.c_void_p), ("count", ctypes.c_int))


class _Field(ctypes.Structure):
    """dbFldDes of dbBase.h."""

    _fields_ = (
        ("prompt", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("extra", ctypes.c_char_p),
        ("record_type", ctypes.c_void_p),
        ("index", ctypes.c_short),
        ("special", ctypes.c_short),
        ("field_type", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("base", ctypes.c_int),
        ("group", ctypes.c_short),
        ("interest", ctypes.c_short),
        ("as_level", ctypes.c_int),
        ("initial", ctypes.c_char_p),
        ("private", ctypes.c_void_p),
        ("size", ctypes.c_short),
        ("offset", ctypes.c_ushort),
    )


class _RecordType(ctypes.Structure):
    """dbRecordType of dbBase.h."""

    _fields_ = (
        ("node", ctypes.c_void_p * 2),
        ("attributes", _List),
        ("records", _List),
        ("devices", _List),
        ("c_definitions", _List),
        ("name", ctypes.c_char_p),
        ("no_fields", ctypes.c_short),
        ("no_prompt", ctypes.c_short),
        ("no_links", ctypes.c_short),
        ("no_aliases", ctypes.c_short),
        ("link_indexes", ctypes.c_void_p),
        ("sorted_names", ctypes.c_void_p),
        ("sorted_indexes", ctypes.c_void_p),
        ("value_field", ctypes.c_void_p),
        ("value_index", ctypes.c_short),
        ("fields", ctypes.POINTER(ctypes.POINTER(_Field))),
        ("rset", ctypes.c_void_p),
        ("size", ctypes.c_int),
    )


class _Location(ctypes.Structure):
    """recordTypeLocation of registryRecordType.h."""

    _fields_ = (("rset", ctypes.c_void_p), ("size_offset", ctypes.c_void_p))


class _Entry(ctypes.Structure):
    """The beginning of DBENTRY."""

    _fields_ = (("base", ctypes.c_void_p), ("record_type", ctypes.POINTER(_RecordType)))


# the registry keeps a pointer into it for the life of the process
_KEEP: list[Any] = []


def motor_definition(base_dbd: Path) -> str:
    """The type's dbd text, made from the `aoRecord.dbd` of the installed EPICS base."""
    text = (base_dbd / "aoRecord.dbd").read_text(encoding="utf-8")
    text = text.replace("recordtype(ao)", "recordtype(motor)")
    # ao's own RBV is the raw readback, which motors call RRBV
    text = re.sub(r"field\(RBV,", "field(RRBV,", text)
    added = "".join(
        f'field({name},DBF_{kind}){{prompt("{name}") initial("{initial}") interest(1)}}\n'
        for name, kind, initial, _ in _ADDED
    )
    end = text.rindex("}")
    device = 'device(motor,CONSTANT,devAoSoft,"Soft Channel")\n'
    return text[:end] + added + text[end:] + "\n" + device


def register_motor(db_core: Any, pdbbase: Any) -> None:
    """Give the loaded type its record support and the layout of its fields.

    To be called after the dbd is loaded and before any record is. RuntimeError when the
    installed base doesn't have the expected structures.
    """
    ao, motor = (_find_type(db_core, pdbbase, name) for name in (b"ao", b"motor"))
    shared = ao.no_fields
    if motor.no_fields != shared + len(_ADDED) or not 0 < ao.size < 16_384:
        raise RuntimeError("this EPICS base lays out its record types in another way")
    for index in range(shared):
        motor.fields[index].contents.size = ao.fields[index].contents.size
        motor.fields[index].contents.offset = ao.fields[index].contents.offset
    offset = (ao.size + 7) & ~7
    for index, (_, _, _, size) in enumerate(_ADDED, start=shared):
        motor.fields[index].contents.size = size
        motor.fields[index].contents.offset = offset
        offset += size
    motor.size = (offset + 7) & ~7
    _register_support(db_core)


def _register_support(db_core: Any) -> None:
    db_core.registryRecordTypeFind.restype = ctypes.POINTER(_Location)
    db_core.registryRecordTypeFind.argtypes = [ctypes.c_char_p]
    db_core.registryRecordTypeAdd.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    registered_type = db_core.registryRecordTypeFind(b"ao")
    if not registered_type:
        raise RuntimeError("the ao record has no support registered")
    location = _Location(registered_type.contents.rset, registered_type.contents.size_offset)
    _KEEP.append(location)
    if not db_core.registryRecordTypeAdd(b"motor", ctypes.byref(location)):
        raise RuntimeError("the motor record could not be registered")


def _find_type(db_core: Any, pdbbase: Any, name: bytes) -> _RecordType:
    db_core.dbAllocEntry.restype = ctypes.POINTER(_Entry)
    db_core.dbAllocEntry.argtypes = [ctypes.c_void_p]
    db_core.dbFindRecordType.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    entry = db_core.dbAllocEntry(pdbbase)
    if db_core.dbFindRecordType(entry, name) != 0:
        raise RuntimeError(f"record type {name.decode()} is not loaded")
    record_type: _RecordType = entry.contents.record_type.contents
    if record_type.name != name:
        raise RuntimeError("this EPICS base lays out its record types in another way")
    return record_type
