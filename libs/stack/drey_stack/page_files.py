"""The operators' page: files built of `web/` by `make web`, shipped beside this module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_ALWAYS_ASKED = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
"""For files that have a hash of their content in their name."""


@dataclass(frozen=True)
class PageFile:
    """One file of the page: `path` of the site, where it lies, and headers of the answer."""

    path: str
    file: Path
    headers: dict[str, str]


def page_files() -> list[PageFile]:
    """All files of the page; needs no key, since there is nothing of the machine in them."""
    files = (each for each in sorted(FOLDER.rglob("*")) if each.suffix in _TYPES)
    return [_page_file(each) for each in files]


def _page_file(file: Path) -> PageFile:
    name = file.relative_to(FOLDER).as_posix()
    headers = {"content-type": _TYPES[file.suffix]}
    headers["cache-control"] = _FOR_EVER if name.startswith("assets/") else _ALWAYS_ASKED
    if file.suffix == ".html":
        headers["content-security-policy"] = _POLICY
        headers["cross-origin-opener-policy"] = "same-origin"
    return PageFile("/" if name == "index.html" else f"/{name}", file, headers)
