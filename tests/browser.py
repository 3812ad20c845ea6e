"""A real browser for the tests of the site and of the dashboard."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from conftest import require_tool

NAMES = ("chromium", "google-chrome", "chromium-browser")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--font-render-hinting=none"]
TIMEOUT = 10_000  # milliseconds


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium or Chrome of this machine; without one the test is skipped."""
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    if not executable:
        require_tool("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        yield browser
        browser.close()
