"""The operators' page in a real browser, as its tests use it: Debian's Chromium, by Playwright."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey.monitor.v1 import monitor_service_pb2
from drey_stack.whole import Stack
from drey_testing.browser import find_browser
from tests.e2e.conftest import Running

SHOWN_S = 60
HANGS_MS = 240_000
"""Only catches a hang."""

WORDS = Path(__file__).parents[2] / "docs/how-to/pictures/words.json"
"""What the page itself says on each picture of the documents."""
OWN_WORDS = """() => {
  const texts = [...document.querySelectorAll("nav a, [role=columnheader], th, dt")]
    .map((each) => each.textContent.replace(/[0-9]+/g, "#").trim());
  return [...new Set(texts)].sort();
}"""

expect.set_options(timeout=HANGS_MS)


def _browser() -> str:
    if found := find_browser():
        return found
    pytest.skip("NO CHROMIUM HERE: the page was NOT tried in a browser: apt-get install chromium")


@asynccontextmanager
async def open_page(
    running: Running, role: str = "ADMIN", theme: str = "light"
) -> AsyncIterator[Page]:
    """The page with the role's key given. It fails where the page complains or looks elsewhere."""
    async with open_site(running.stack, running.keys[role], theme) as page:
        yield page


@asynccontextmanager
async def open_site(stack: Stack, key: str, theme: str = "light") -> AsyncIterator[Page]:
    """As `open_page`, of any stack."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_browser(), args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        context = await browser.new_context(
            viewport={"width": 1440, "height": 860},
            color_scheme="dark" if theme == "dark" else "light",
        )
        context.set_default_timeout(HANGS_MS)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(stack.web)
                else complaints.append(f"asked for {request.url}")
            ),
        )
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if "Content Security Policy" in message.text
                else None
            ),
        )
        try:
            await page.goto(stack.web)
            await page.fill("#key", key)
            await page.keyboard.press("Enter")
            await expect(page.locator("nav")).to_be_visible()
            yield page
        finally:
            await browser.close()
    assert complaints == []


@asynccontextmanager
async def asleep(page: Page) -> AsyncIterator[None]:
    """The processes of the page stand still: a browser freezes no page that is in view."""
    assert page.context.browser is not None
    devtools = await page.context.browser.new_browser_cdp_session()
    processes = (await devtools.send("SystemInfo.getProcessInfo"))["processInfo"]
    renderers = [process["id"] for process in processes if process["type"] == "renderer"]
    assert renderers
    try:
        for pid in renderers:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in renderers:
            os.kill(pid, signal.SIGCONT)


async def go_tab(page: Page, letter: str) -> None:
    await page.keyboard.press("g")
    await page.keyboard.press(letter)


async def search_words(page: Page, words: str) -> None:
    await page.keyboard.press("/")
    await page.keyboard.type(words)
    await page.keyboard.press("Escape")


def row_of(page: Page, name: str) -> Locator:
    """The row of one PV, wherever it stands: other rows may come and go meanwhile."""
    return page.locator(".grid-row").filter(has=page.locator(f'.mono[title="{name}"]'))


def _save_picture(folder: Path, name: str, content: bytes, words: list[str]) -> None:
    (folder / f"{name}.png").write_bytes(content)
    path = folder / WORDS.name
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps(dict(sorted({**known, name: words}.items())), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


async def shoot(page: Page, name: str, later_ms: int = 0) -> None:
    """A picture for the documents, where they are asked for; later, for what a plot gathers.

    Else the one that they show must have the parts, columns and facts that the page has now.
    """
    if folder := os.environ.get("DREY_PAGE_PICTURES"):
        await page.wait_for_timeout(later_ms)
        # by a path Playwright writes it in a thread, which stays
        picture = await page.screenshot()
        _save_picture(Path(folder), name, picture, await page.evaluate(OWN_WORDS))
        return
    shown = json.loads(WORDS.read_text(encoding="utf-8")).get(name)
    if shown is None:
        return
    end = time.monotonic() + SHOWN_S
    while (words := await page.evaluate(OWN_WORDS)) != shown and time.monotonic() < end:
        await page.wait_for_timeout(200)  # some of it comes a moment later
    assert words == shown, f"docs/how-to/pictures/{name}.png is old: make it by DREY_PAGE_PICTURES"


@cache
def _axe() -> str:
    """The script, which its package for Playwright has inside."""
    found = find_spec("axe_playwright_python")
    assert found is not None and found.origin is not None
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


async def look_for_barriers(page: Page, where: str, findings: dict[str, list[str]]) -> None:
    """Add what axe finds on the page as it is now."""
    # past the page's own policy, which lets no other script in
    await page.evaluate(_axe())
    found = await page.evaluate("axe.run()")
    for each in found["violations"]:
        findings[f"{where} {each['id']}"] = [node["html"][:300] for node in each["nodes"][:3]]


def await_value(running: Running, name: str, comes: bool = True) -> None:
    """Until the setpoint of a PV has a value, or none any more."""

    def is_so() -> bool:
        request = monitor_service_pb2.GetValuesRequest(selector={"names": [name]})
        try:
            answers = list(running.monitor.GetValues(request, **running.call()))
        except grpc.RpcError:
            return False
        rows = [row for answer in answers for row in answer.rows]
        return any((row.setpoint.WhichOneof("data") is not None) == comes for row in rows)

    running.pump(is_so)


def own_pv(running: Running, name: str, **restore: float) -> catalog_pb2.Pv:
    """A PV of the test's own at the address of a magnet, connected."""
    listed = catalog_service_pb2.ListPvsRequest(selector={"globs": ["QUAD:*"]}, page_size=1)
    (magnet,) = running.catalog.ListPvs(listed, **running.call()).pvs
    pv = catalog_pb2.Pv(name=name, setpoint={"address": magnet.setpoint.address})
    if restore:
        pv.restore_policy.CopyFrom(catalog_pb2.RestorePolicy(**restore))
    made = catalog_service_pb2.BatchCreatePvsRequest(pvs=[pv])
    (result,) = running.catalog.BatchCreatePvs(made, **running.call()).results
    await_value(running, name)
    return result.pv


@contextmanager
def purged(running: Running, name: str) -> Iterator[None]:
    """Afterwards no PV is left whose name begins so."""
    try:
        yield
    finally:
        request = catalog_service_pb2.PurgePvsRequest(selector={"globs": [f"{name}*"]})
        running.catalog.PurgePvs(request, **running.call())
