"""libca by ctypes, for bulk use: integer tokens instead of Python objects as user pointers.

`aioca` owns the process's one CA context (preemptive callbacks, destroyed at exit) and loads
the library; these are further views on the same functions. They return ECA codes instead of
raising, because a bulk call wants a code for each row. Each call releases the GIL: libca takes
its own locks, and a callback that holds them may be waiting for the GIL.
"""

from __future__ import annotations

import ctypes
from typing import Any

import aioca
from epicscorelibs.ca import cadef

DBE_VALUE, DBE_ALARM, DBE_PROPERTY = 1, 4, 8
CONNECTION_UP = 6


class EventArgs(ctypes.Structure):
    """`struct event_handler_args`."""

    _fields_ = (
        ("usr", ctypes.c_size_t),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("dbr", ctypes.c_void_p),
        ("status", ctypes.c_int),
    )


class ConnectionArgs(ctypes.Structure):
    """`struct connection_handler_args`."""

    _fields_ = (("chid", ctypes.c_void_p), ("op", ctypes.c_long))


class AccessArgs(ctypes.Structure):
    """`struct access_rights_handler_args`; bit 0 of `rights` is read, bit 1 write."""

    _fields_ = (("chid", ctypes.c_void_p), ("rights", ctypes.c_uint))


event_handler = ctypes.CFUNCTYPE(None, EventArgs)
connection_handler = ctypes.CFUNCTYPE(None, ConnectionArgs)
access_handler = ctypes.CFUNCTYPE(None, AccessArgs)


def _bind(name: str, restype: Any, *argtypes: Any) -> Any:
    function = cadef.libca[name]  # indexing gives a function object of our own
    function.restype = restype
    function.argtypes = argtypes
    return function


# For the accessors that a callback uses: they take libca's mutex for an instant, and nobody who
# holds that mutex waits for the GIL, so keeping the GIL is safe. Giving it up six times in each
# callback would wait up to six switch intervals (5 ms each) for a busy loop.
_keeping_gil = ctypes.PyDLL(str(cadef.libca._name), handle=cadef.libca._handle)


def _accessor(name: str, restype: Any, *argtypes: Any) -> Any:
    function = _keeping_gil[name]
    function.restype = restype
    function.argtypes = argtypes
    return function


_chid, _long, _token, _int = ctypes.c_void_p, ctypes.c_long, ctypes.c_size_t, ctypes.c_int
_out = ctypes.POINTER(ctypes.c_void_p)

create_channel = _bind(
    "ca_create_channel", _int, ctypes.c_char_p, connection_handler, _token, ctypes.c_uint, _out
)
clear_channel = _bind("ca_clear_channel", _int, _chid)
replace_access_rights_event = _bind("ca_replace_access_rights_event", _int, _chid, access_handler)
user_token = _accessor("ca_puser", _token, _chid)
field_type = _accessor("ca_field_type", ctypes.c_short, _chid)
read_access = _accessor("ca_read_access", ctypes.c_uint, _chid)
write_access = _accessor("ca_write_access", ctypes.c_uint, _chid)
element_count = _accessor("ca_element_count", ctypes.c_ulong, _chid)
get_host_name = _accessor("ca_get_host_name", ctypes.c_uint, _chid, ctypes.c_char_p, ctypes.c_uint)
create_subscription = _bind(
    "ca_create_subscription", _int, _long, ctypes.c_ulong, _chid, _long, event_handler, _token, _out
)
clear_subscription = _bind("ca_clear_subscription", _int, _chid)
array_get_callback = _bind(
    "ca_array_get_callback", _int, _long, ctypes.c_ulong, _chid, event_handler, _token
)
array_put = _bind("ca_array_put", _int, _long, ctypes.c_ulong, _chid, ctypes.c_void_p)
array_put_callback = _bind(
    "ca_array_put_callback",
    _int,
    _long,
    ctypes.c_ulong,
    _chid,
    ctypes.c_void_p,
    event_handler,
    _token,
)
flush_io = _bind("ca_flush_io", _int)
string_at = ctypes.string_at


_attached: list[bool] = []


def attach() -> None:
    """Make or join aioca's CA context in this thread; needs a running event loop."""
    aioca.get_channel_infos()
    _attached[:] = [True]


def is_attached() -> bool:
    """Whether aioca's context has been made."""
    return bool(_attached)
