"""Drey for Python programs and GUIs.

`Client` is for asyncio, `BlockingClient` for everything else. Names are loaded when they are first
used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drey_client.audit import AuditedRestore
    from drey_client.blocking import BlockingClient, BlockingWatch
    from drey_client.choosing import choose
    from drey_client.client import Client
    from drey_client.errors import ClientError
    from drey_client.pv_files import PvImport
    from drey_client.settings import (
        Connection,
        ConnectionOptions,
        ConnectionUnclear,
        find_connection,
    )
    from drey_client.tables import ComparisonTable, ValueTable
    from drey_client.values import (
        AlarmSeverity,
        ArrayDecimation,
        ArrayExtract,
        ChannelState,
        ChannelValue,
        EnumState,
        LivePv,
        value_of,
    )
    from drey_client.watch import LiveChange, LiveWatch

_MODULES = {
    "AlarmSeverity": "values",
    "ArrayExtract": "values",
    "AuditedRestore": "audit",
    "BlockingClient": "blocking",
    "BlockingWatch": "blocking",
    "ChannelState": "values",
    "ChannelValue": "values",
    "Client": "client",
    "ClientError": "errors",
    "ComparisonTable": "tables",
    "Connection": "settings",
    "ConnectionOptions": "settings",
    "ConnectionUnclear": "settings",
    "ArrayDecimation": "values",
    "EnumState": "values",
    "LiveChange": "watch",
    "LivePv": "values",
    "LiveWatch": "watch",
    "PvImport": "pv_files",
    "ValueTable": "tables",
    "choose": "choosing",
    "find_connection": "settings",
    "value_of": "values",
}

__all__ = [
    "AlarmSeverity",
    "ArrayDecimation",
    "ArrayExtract",
    "AuditedRestore",
    "BlockingClient",
    "BlockingWatch",
    "ChannelState",
    "ChannelValue",
    "Client",
    "ClientError",
    "ComparisonTable",
    "Connection",
    "ConnectionOptions",
    "ConnectionUnclear",
    "EnumState",
    "LiveChange",
    "LivePv",
    "LiveWatch",
    "PvImport",
    "ValueTable",
    "choose",
    "find_connection",
    "value_of",
]


if not TYPE_CHECKING:  # else a name that nothing has would pass as one of any type

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
