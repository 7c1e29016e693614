"""The operators' page in a real browser: Debian's Chromium, by Playwright."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.e2e.conftest import PVS, Running
from tests.http_calls import call_http

ROOT = Path(__file__).resolve().parents[2]
HANGS_MS = 240_000
"""Only catches a hang."""

expect.set_options(timeout=HANGS_MS)


def _browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("NO CHROMIUM HERE: the page was NOT tried in a browser: apt-get install chromium")


@asynccontextmanager
async def _open_page(
    running: Running, role: str = "ADMIN", theme: str = "light"
) -> AsyncIterator[Page]:
    """The page with the role's key given. It fails where the page complains or looks elsewhere."""
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
                if request.url.startswith(running.stack.web)
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
            await page.goto(running.stack.web)
            await page.fill("#key", running.keys[role])
            await page.keyboard.press("Enter")
            await expect(page.locator("nav")).to_be_visible()
            yield page
        finally:
            await browser.close()
    assert complaints == []


async def _go(page: Page, letter: str) -> None:
    await page.keyboard.press("g")
    await page.keyboard.press(letter)


def test_every_file_of_the_page_is_served_without_a_key(running: Running) -> None:
    answer = call_http(running.stack.web, "GET", "/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', answer.body.decode())
    assert loaded
    for path in loaded:
        file = call_http(running.stack.web, "GET", path)
        assert file.status == 200, path
        assert "immutable" in file.headers["cache-control"]
        assert file.headers["x-content-type-options"] == "nosniff"
    # nothing but what is the page's own
    assert call_http(running.stack.web, "GET", "/assets/").status == 404
    assert call_http(running.stack.web, "GET", "/record.json").status == 404
    assert call_http(running.stack.web, "GET", "/v1/whoami").status == 401


def test_a_wrong_key_is_refused_and_not_kept(running: Running) -> None:
    async def scenario() -> None:
        async with _open_page(running) as page:
            await page.get_by_role("button", name="Leave").click()
            await page.fill("#key", "drey_wrong")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text("UNAUTHENTICATED")
            assert await page.evaluate("sessionStorage.getItem('drey.key')") is None

    running.do(scenario())


async def _write(running: Running, values: dict[str, float]) -> None:
    """Change setpoints, past Drey."""
    path = running.machine.folder / "values.json"
    path.write_text(json.dumps(values))
    await running.machine.run("write", "--values-from", str(path))


def test_rows_are_live(running: Running) -> None:
    """All PVs are there, and a value that changes is seen."""

    async def scenario() -> None:
        async with _open_page(running) as page:
            await _go(page, "p")
            status = page.get_by_role("status")
            await expect(status).to_have_text(f"{PVS} of {PVS} PVs")
            await page.keyboard.press("/")
            await page.keyboard.type("bdes bend")
            await page.keyboard.press("Escape")
            await expect(status).not_to_have_text(f"{PVS} of {PVS} PVs")
            row = page.locator(".grid-row").first
            name = await row.locator(".mono").inner_text()
            for value in (12.3456, -7.0001):
                await _write(running, {name: value})
                await expect(row.locator(".value").first).to_have_text(f"{value:.4f}")
            # what is chosen is shown in full
            await row.click()
            await page.keyboard.press("p")
            await expect(page.locator("aside")).to_contain_text("-7.0001 A")
            await expect(page.locator("aside")).to_contain_text("Time at the IOC")
            await expect(page.locator(".plot canvas")).to_have_count(1)
            await page.keyboard.press("ArrowDown")
            await expect(page.locator(".grid-row.chosen .mono")).not_to_have_text(name)

    running.do(scenario())
