"""Headless Chromium for the tests, and what went wrong in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, ViewportSize, sync_playwright

WINDOW = ViewportSize(width=1280, height=900)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def opened_page(url: str) -> Iterator[Page]:
    """Open the page at that address. AssertionError if it logs an error or a warning, or requests another address.
    Skips if no Chromium is installed, except in CI."""
    if BROWSER is None:
        assert not os.environ.get("CI"), "install Chromium: the pages are checked here"
        pytest.skip("no Chromium on this machine")
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto(url)
        yield page
        logged = [*said]  # closing the browser ends requests that are under way, which it reports as failed
        browser.close()
    assert logged == [], logged
