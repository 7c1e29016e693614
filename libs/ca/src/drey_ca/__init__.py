"""Bulk Channel Access in columns. Start with `open_table`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from drey_ca.interface import ChannelTable, InfoColumns, ReadResult, Slots, TableStats
from drey_core.errors import Unimplemented

__all__ = ["ChannelTable", "InfoColumns", "ReadResult", "Slots", "TableStats", "open_table"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_table(implementation: str = "auto") -> AsyncIterator[ChannelTable]:
    """A channel table for the running loop, closed at the end of the scope.

    `implementation` is `auto`, `aioca` or `native`. `auto` takes the native table where it was
    built, and aioca's elsewhere, which it says at warning level; `ChannelTable.implementation`
    tells which. Raises `Unimplemented` for `native` where it was not built, `ValueError` for an
    unknown name, `RuntimeError` in a process forked from one that used Channel Access.
    """
    if implementation not in ("auto", "aioca", "native"):
        raise ValueError(f"implementation {implementation!r} is not one of auto, aioca, native")
    async with _table(implementation) as table:
        yield table


def _table(implementation: str) -> AbstractAsyncContextManager[ChannelTable]:
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
            return NativeTable()
    from drey_ca.aioca_table import AiocaTable

    return AiocaTable()


@cache
def _say_fallback(why: str) -> None:
    log.warning(
        "the native channel table was not built (%s); using aioca's, which is many times slower:"
        " install a C compiler and drey-ca again",
        why,
    )
