"""Which names a channel can have on the wire."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import InvalidArgument
from drey_core.names import name_problem


def are_names(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each can be the name of a channel, shape (n,)."""
    return np.fromiter((name_problem(text) is None for text in texts), np.bool_, len(texts))


def checked_names(names: Sequence[str]) -> list[bytes]:
    """Names as they go on the wire; InvalidArgument naming the first that cannot."""
    bad = np.flatnonzero(~are_names(names))
    if len(bad):
        name = names[bad[0]]
        raise InvalidArgument(
            f"no channel can be named {name[:60]!r}: it {name_problem(name)}",
            field=f"names[{bad[0]}]",
        )
    return [name.encode() for name in names]
