"""The fixtures of the dashboard's tests; a test module names this one in `pytest_plugins`."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from browser import TIMEOUT, chromium
from dashboard import LOCALES, NOW, Dashboard, Ledger, Open, Scheme, gateway_events, seen_at, text_of
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Server(create_app(MemoryStore())) as server, seen_at(server.url) as ledger:
        yield ledger


@pytest.fixture
def usage(ledger: Ledger) -> Ledger:
    """A ledger that has an hour of an API gateway's usage, at a time that stands still."""
    ledger.post("/local/clock", {"now": text_of(NOW)})
    ledger.client.ensure_meters(BLUEPRINT.meters)
    events = sorted(gateway_events(400), key=lambda event: event["timestamp"])
    assert ledger.send(*events)["ingested_count"] == 400
    return ledger


@pytest.fixture
def open_dashboard(browser: Browser) -> Iterator[Open]:
    """Opens the dashboard; at the end no page may have complained, or asked another host for anything."""
    opened: list[tuple[Dashboard, str]] = []

    def open_it(
        url: str,
        view: str = "events",
        *,
        language: str = "en",
        scheme: Scheme = "light",
        width: int = 1280,
        height: int = 800,
        refusals: bool = False,
    ) -> Dashboard:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            locale=LOCALES[language],
            timezone_id="Europe/Stockholm",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(TIMEOUT)
        dashboard = Dashboard(context.new_page(), refusals)
        dashboard.listen()
        opened.append((dashboard, url))
        dashboard.page.goto(f"{url}/dashboard#{view}")
        expect(dashboard.page.locator("#status")).to_have_attribute("data-state", "connected")
        return dashboard

    yield open_it
    for dashboard, _ in opened:
        dashboard.page.context.close()
    assert [complaint for dashboard, _ in opened for complaint in dashboard.complaints] == []
    assert [each for dashboard, url in opened for each in dashboard.asked if not each.startswith(f"{url}/")] == []
