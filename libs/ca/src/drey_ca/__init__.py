"""Bulk Channel Access in columns. Start with `open_table`."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from drey_ca.addresses import (
    given_lists,
    given_variable,
    host_names,
    resolve_hosts,
    unresolved_hosts,
    write_numbers,
)
from drey_ca.interface import (
    ChannelTable,
    Connections,
    InfoColumns,
    ReadResult,
    ServedTwice,
    Slots,
    TableStats,
)
from drey_core.errors import Unimplemented

__all__ = [
    "ChannelTable",
    "Connections",
    "InfoColumns",
    "ReadResult",
    "ServedTwice",
    "Slots",
    "TableStats",
    "open_table",
]

log = logging.getLogger(__name__)

_RESOLVE_S = 2.0


@asynccontextmanager
async def open_table(
    implementation: str = "auto", environment: Mapping[str, str] | None = None
) -> AsyncIterator[ChannelTable]:
    """A channel table for the running loop, closed at the end of the scope.

    `environment` holds `EPICS_CA_*` variables that go before those of the process, and stay in
    its environment: libca reads them when a context is made, which is at each native table and
    at the first one of aioca's. Host names in the lists of addresses are resolved before that, for
    two seconds at most; of a name that cannot be, libca makes what it can at the first channel.

    `implementation` is `auto`, `aioca` or `native`. `auto` takes the native table where it was
    built, and aioca's elsewhere, which it says at warning level; `ChannelTable.implementation_name`
    tells which. Raises `Unimplemented` for `native` where it was not built, `ValueError` for an
    unknown name or variable, `RuntimeError` in a process forked from one that used Channel
    Access, or where aioca's context was made with another environment.
    """
    if implementation not in ("auto", "aioca", "native"):
        raise ValueError(f"implementation {implementation!r} is not one of auto, aioca, native")
    environment = environment or {}
    for variable in environment:
        if not variable.startswith("EPICS_CA_"):
            raise ValueError(f"{variable} is no variable of Channel Access (EPICS_CA_...)")
    made = _make_table(implementation, environment)
    await _resolve_names()
    async with made as table:
        yield table


async def _resolve_names() -> None:
    write_numbers(await resolve_hosts(host_names(given_lists()), _RESOLVE_S))
    for host in unresolved_hosts():
        log.warning(
            "%s has no address: what it serves may not be found. See the name service", host
        )


def _make_table(
    implementation: str, environment: Mapping[str, str]
) -> AbstractAsyncContextManager[ChannelTable]:
    # Imported here: whoever needs the port alone may lack libca.
    if implementation != "aioca":
        try:
            from drey_ca.native_table import NativeTable
        except ImportError as error:
            if implementation == "native":
                raise Unimplemented(
                    f"the native channel table was not built ({error}); install a C compiler and"
                    " drey-ca again, or use 'aioca' or 'auto'"
                ) from error
            _say_fallback(str(error))
        else:
            os.environ.update(environment)
            return NativeTable()
    from drey_ca.aioca_table import AiocaTable, is_attached

    changed = [name for name, value in environment.items() if given_variable(name) != value]
    if changed and is_attached():
        raise RuntimeError(
            f"{changed[0]} cannot change any more: aioca's one context was made without it"
        )
    os.environ.update(environment)
    return AiocaTable()


@cache
def _say_fallback(why: str) -> None:
    log.warning(
        "the native channel table was not built (%s); using aioca's, which is many times slower:"
        " install a C compiler and drey-ca again",
        why,
    )
