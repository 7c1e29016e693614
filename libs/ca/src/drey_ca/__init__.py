"""Bulk Channel Access in columns. Start with `open_table`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from drey_ca.interface import ChannelTable, InfoColumns, ReadResult, Slots, TableStats
from drey_core.errors import Unimplemented

__all__ = ["ChannelTable", "InfoColumns", "ReadResult", "Slots", "TableStats", "open_table"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_table(implementation: str = "auto") -> AsyncIterator[ChannelTable]:
    """A channel table for the running loop, closed at the end of the scope.

    `implementation` is `auto`, `aioca` or `native`. `auto` takes the best there is and says so
    once in the log; `ChannelTable.implementation` tells which. Raises `Unimplemented` for
    `native`, which is not built, and `ValueError` for an unknown name.
    """
    if implementation not in ("auto", "aioca", "native"):
        raise ValueError(f"implementation {implementation!r} is not one of auto, aioca, native")
    if implementation == "native":
        raise Unimplemented("the native channel table is not built; use 'aioca' or 'auto'")
    if implementation == "auto":
        _say_fallback()
    from drey_ca.aioca_table import AiocaTable  # loads libca, which the port's users may lack

    async with AiocaTable() as table:
        yield table


@cache
def _say_fallback() -> None:
    log.warning("the native channel table is not available; using aioca's")
