"""What the tests of the dashboard are written with: a ledger, its usage, a page, and what is done to them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import httpx
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from meterprint import MeteringClient

ROOT = Path(__file__).parent.parent
KEY = "local"
NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
LOCALES = {"en": "en-GB", "sv": "sv-SE"}
TIMES = "\u00d7"
Scheme: TypeAlias = Literal["light", "dark"]


@dataclass
class Ledger:
    """The metering API, and a ledger of it as a test sees it past the dashboard."""

    url: str
    client: MeteringClient
    http: httpx.Client

    def post(self, path: str, body: object) -> Any:
        answer = self.http.post(path, json=body)
        return answer.json() if answer.content else None

    def get(self, path: str, **query: str) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()

    def send(self, *events: Mapping[str, Any]) -> Any:
        return self.post("/events/ingest", {"events": events})

    def meter_id(self, name: str) -> str:
        return next(each.id or "" for each in self.client.meters() if each.name == name)


@contextmanager
def seen_at(url: str, key: str = KEY) -> Iterator[Ledger]:
    """A ledger of an API that runs at this address."""
    headers = {"Authorization": f"Bearer {key}"}
    with MeteringClient(url, key) as client, httpx.Client(base_url=url, headers=headers) as http:
        yield Ledger(url, client, http)


def gateway_events(count: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(7)
    endpoints = [
        *[("/v1/orders/{order_id}", "GET", 200)] * 6,
        *[("/v1/search", "GET", 200)] * 3,
        *[("/v1/orders", "POST", 201)] * 2,
        ("/v1/reports/{report_id}", "GET", 200),
        ("/v1/orders", "POST", 429),
        ("/health", "GET", 200),
    ]
    for number in range(count):
        endpoint, method, status = chance.choice(endpoints)
        metadata = {
            "endpoint": endpoint,
            "method": method,
            "status_code": status,
            "duration_ms": chance.randrange(30, 800) / 10,
            "request_bytes": 256 if method == "POST" else 0,
            "response_bytes": chance.randrange(200, 90_000),
        }
        customer = chance.choice(["cus_ada", "cus_ada", "cus_ada", "cus_bo", "cus_bo", "cus_cleo"])
        second = NOW - timedelta(seconds=int(chance.triangular(5, 3500, 5)))
        yield event(f"req_{number:04}", metadata, customer_id=customer, timestamp=second)


def event(
    event_id: str,
    metadata: Mapping[str, object] | None = None,
    *,
    customer_id: str = "cus_ada",
    name: str = "api.request",
    timestamp: datetime | None = None,
) -> dict[str, Any]:
    """An event on the wire. Its values are not checked: a test may want them wrong."""
    made = {"event_id": event_id, "customer_id": customer_id, "event_name": name, "metadata": metadata or {}}
    return made if timestamp is None else {**made, "timestamp": text_of(timestamp)}


def text_of(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Dashboard:
    """A page of the dashboard, and what it complained of."""

    page: Page
    refusals: bool = False  # whether the test makes the API refuse what the page asks
    complaints: list[str] = field(default_factory=list[str])
    asked: set[str] = field(default_factory=set[str])

    def listen(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.add(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        expected = self.refusals and message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(f"{message.text} {message.location}")

    def go(self, view: str) -> None:
        self.page.evaluate("view => { location.hash = view }", view)
        expect(self.page.locator(f"#view-{view.partition('/')[0]}")).to_be_visible()

    def rows(self, kind: str) -> Locator:
        return self.page.locator(f'#feed > [data-kind="{kind}"] > .line')

    def copied(self, button: Locator) -> str:
        self.page.evaluate("navigator.clipboard.writeText('')")
        button.click()
        expect(self.page.locator("#toast")).to_contain_text(re.compile("Copied|Kopierat"))
        return str(self.page.evaluate("navigator.clipboard.readText()"))


class Open(Protocol):
    """What the fixture `open_dashboard` gives."""

    def __call__(
        self,
        url: str,
        view: str = "events",
        *,
        language: str = "en",
        scheme: Scheme = "light",
        width: int = 1280,
        height: int = 800,
        refusals: bool = False,
    ) -> Dashboard: ...


def meter(name: str, kind: str = "count", key: str | None = None, **rest: Any) -> dict[str, Any]:
    aggregation = {"type": kind, "key": key}
    return {"name": name, "event_name": "api.request", "aggregation": aggregation, "measurement_unit": "unit", **rest}


def condition(key: str, value: object) -> dict[str, Any]:
    return {"key": key, "operator": "equals", "value": value}


def fill_condition(page: Page, pointer: str, key: str, operator: str, value: str) -> None:
    page.locator(f"[data-pointer='{pointer}/key']").fill(key)
    page.locator(f"[data-pointer='{pointer}/operator']").select_option(operator)
    page.locator(f"[data-pointer='{pointer}/value']").fill(value)


def read_total(page: Page) -> Locator:
    return page.locator("#invoice-total")
