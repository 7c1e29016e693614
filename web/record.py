"""Record of what the page was built, so that one behind its sources is seen without Node.

    python web/record.py

`make web` writes it beside the built files; a test compares. The contracts are not in it: comments
and new fields change them daily and not the page, and what would break it is refused by
`make contracts-check`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

WEB = Path(__file__).parent
BUILT = WEB.parent / "libs" / "stack" / "drey_stack" / "page"
RECORD = BUILT / "record.json"
_BUILDS = (
    "index.html",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "vite.config.ts",
    "buf.gen.yaml",
)


def sources() -> list[Path]:
    """All that decides what is built, but the contracts."""
    return sorted(
        [
            *(path for path in (WEB / "src").rglob("*") if path.is_file()),
            *map(WEB.joinpath, _BUILDS),
        ]
    )


def _digest(root: Path, files: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix().encode()
        content = path.read_bytes()
        whole.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return whole.hexdigest()


def record() -> dict[str, str]:
    """Digests of the sources and of what was built of them."""
    built = sorted(path for path in BUILT.rglob("*") if path.is_file() and path != RECORD)
    return {"sources": _digest(WEB, sources()), "built": _digest(BUILT, built)}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(), indent=1) + "\n")
