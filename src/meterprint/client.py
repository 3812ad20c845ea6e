"""Clients of the metering API. The only module that imports httpx."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from .errors import APIError, ConfigurationError, Problem, UnreachableError, ValidationError
from .event import Event, check_batch, format_timestamp, parse_timestamp, utc_now

if TYPE_CHECKING:
    from decimal import Decimal

    from .meter import Meter

URL_VARIABLE = "METERING_API_URL"
KEY_VARIABLE = "METERING_API_KEY"

_INGEST = "/events/ingest"
_CLOCK = "/local/clock"
_JSON = {"Content-Type": "application/json"}
_PAGE_SIZE = 100  # the most that the contract allows
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0  # seconds


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What the metering API did with a batch.

    Attributes:
        ingested_count: How many events it stored.
        duplicate_count: How many it had already and ignored; 0 if the API does not say.
    """

    ingested_count: int
    duplicate_count: int = 0


class Answer(NamedTuple):
    """What came back of one try to ingest; delivery decides what it means.

    Attributes:
        status: The HTTP status code; 0 if no answer came.
        result: What a success says.
        error: What anything else says.
        retry_after: Seconds to wait, by Retry-After (RFC 9110 section 10.2.3), else by X-RateLimit-Reset.
        server_time: The server's clock, in seconds since 1970, by its Date header.
    """

    status: int
    result: IngestResult | None = None
    error: APIError | UnreachableError | None = None
    retry_after: float | None = None
    server_time: float | None = None

    @property
    def code(self) -> str:
        """The error code of the answer, or an empty string."""
        return self.error.code if isinstance(self.error, APIError) else ""


@dataclass(frozen=True, slots=True)
class _Settings:
    """What both clients share: where to, as whom, and when to try again."""

    url: str
    key: str
    timeout: float
    retries: int
    longest_pause: float

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"the URL {self.url!r} of the metering API does not start with http:// or https://"
            )
        if not self.key or not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ConfigurationError("the API key is empty, or holds a space or a character that a header cannot carry")

    @property
    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "key", "timeout", "retries", "longest_pause")}

    @property
    def http(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": "meterprint"}
        return {"base_url": self.url, "headers": headers, "timeout": self.timeout}

    def delay(self, attempt: int, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Seconds until the next try, or None if there is none to make.

        Full jitter over a doubling bound; a Retry-After in the answer goes before it.
        """
        if isinstance(outcome, httpx.Response) and outcome.status_code not in _RETRIED:
            return None
        if attempt >= self.retries:
            return None
        asked = _retry_after(outcome) if isinstance(outcome, httpx.Response) else None
        if asked is not None:
            return asked if asked <= self.longest_pause else None
        return random.uniform(0, min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY))  # noqa: S311  # jitter, not a secret

    def answer(self, outcome: httpx.Response | httpx.RequestError) -> Any:
        """The decoded body of a success; anything else raises."""
        if isinstance(outcome, httpx.RequestError):
            why = str(outcome) or type(outcome).__name__
            advice = "" if "://127.0.0.1" not in self.url else ": is it running? Start it with `meterprint up`"
            raise UnreachableError(f"no answer from {self.url} ({why}){advice}") from outcome
        try:
            body: Any = outcome.json() if outcome.content else None
        except ValueError:
            body = None
        if outcome.is_success and (body is not None or not outcome.content):
            return body
        error: Mapping[str, Any] = body if isinstance(body, dict) else {}
        details: Any = error.get("details")
        problems = [
            Problem(str(detail.get("pointer", "")), str(detail.get("reason", "")))
            for detail in (details if isinstance(details, list) else ())
            if isinstance(detail, dict)
        ]
        message = str(error.get("message") or f"{self.url} does not answer as a metering API")
        raise APIError(outcome.status_code, str(error.get("code", "UNKNOWN")), message, problems)

    def ingest_answer(self, outcome: httpx.Response | Exception) -> Answer:
        """What one try to ingest brought, never an exception."""
        if not isinstance(outcome, httpx.Response):
            why = str(outcome) or type(outcome).__name__
            return Answer(0, error=UnreachableError(f"no answer from {self.url} ({why})"))
        common: dict[str, Any] = {"retry_after": _retry_after(outcome), "server_time": _date(outcome)}
        try:
            return Answer(outcome.status_code, _ingested(self.answer(outcome)), **common)
        except APIError as error:
            return Answer(outcome.status_code, error=error, **common)

    def __repr__(self) -> str:
        return f"url={self.url!r}, key='...'"


class MeteringClient:
    """A client of the metering API.

    Requests are retried on 408, 425, 429, 5xx and network errors, with the same body: event ids make that safe.

    Args:
        url: Where the metering API is, for example `http://127.0.0.1:4141`.
        key: The API key.
        timeout: Seconds for each try.
        retries: How many further tries a request has.
        longest_pause: Seconds that an answer may ask to wait (Retry-After) before the next try; one that asks for
            more is raised.
        pace: Called before each try: it may wait, to stay below a rate limit.
        transport: How requests travel; for tests.
        sleep: How to wait between tries; for tests.

    Raises:
        ConfigurationError: The URL or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 10.0,
        retries: int = 3,
        longest_pause: float = _LONGEST_DELAY,
        pace: Callable[[], None] | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = _Settings(url, key, timeout, retries, longest_pause)
        self._pace = pace
        self._transport = transport
        self._http = httpx.Client(transport=transport, **self._settings.http)
        self._sleep = sleep

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client from METERING_API_URL and METERING_API_KEY; the options are those of the class.

        Raises:
            ConfigurationError: One of the two is not set.
        """
        return cls(*environment(), **options)

    def _call(self, method: str, path: str, query: Mapping[str, Any] | None = None, **body: Any) -> Any:
        request = self._http.build_request(method, path, params=query, **body)
        attempt = 0
        while True:
            if self._pace:
                self._pace()
            try:
                outcome: httpx.Response | httpx.RequestError = self._http.send(request)
            except httpx.RequestError as error:
                outcome = error
            delay = self._settings.delay(attempt, outcome)
            if delay is None:
                return self._settings.answer(outcome)
            self._sleep(delay)
            attempt += 1

    def ingest(self, events: Sequence[Event]) -> IngestResult:
        """Send up to 1,000 events; all are stored, or none.

        Raises:
            ValidationError: The batch breaks a limit; nothing was sent.
            APIError: The API refused it; nothing was stored.
            UnreachableError: No answer; send the same events again later.
        """
        return _ingested(self._call("POST", _INGEST, **_ingest_body(events)))

    def ingest_once(self, body: bytes, *, timeout: float | None = None) -> Answer:
        """Send a body of `POST /events/ingest` once, and say what came of it; it raises nothing.

        Args:
            body: The JSON text.
            timeout: Seconds that it may take; the client's own, if None.
        """
        try:
            outcome: httpx.Response | Exception = self._http.post(
                _INGEST, content=body, headers=_JSON, timeout=self._settings.timeout if timeout is None else timeout
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the events were not acknowledged
            outcome = error
        return self._settings.ingest_answer(outcome)

    def renewed(self) -> MeteringClient:
        """A client with the same settings and connections of its own, for a forked process."""
        options: dict[str, Any] = {"pace": self._pace, "transport": self._transport, "sleep": self._sleep}
        return MeteringClient(**self._settings.arguments, **options)

    def blocking(self) -> MeteringClient:
        """This client."""
        return self

    def events(
        self,
        *,
        customer_id: str | None = None,
        event_name: str | None = None,
        meter_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Iterator[Event]:
        """All stored events that match, newest first, each once, page by page.

        Args:
            customer_id: Only this customer's.
            event_name: Only those of this name.
            meter_id: Only those that this meter counts.
            start: Only those at or after this time.
            end: Only those before this time.
        """
        pages = _Pages(_event_query(customer_id, event_name, meter_id, start, end))
        while pages.more:
            yield from pages.take(self._call("GET", "/events", pages.query))

    def event(self, event_id: str) -> Event:
        """One event.

        Raises:
            APIError: There is none with this id (NOT_FOUND).
        """
        return Event.from_wire(self._call("GET", f"/events/{quote(event_id, safe='')}"), strict=False)

    def create_meter(self, meter: Meter) -> Meter:
        """Create a meter.

        Returns:
            The meter with its id.
        """
        return _meter(self._call("POST", "/meters", json=meter.to_wire()))

    def ensure_meters(self, meters: Iterable[Meter]) -> list[Meter]:
        """Create those meters that do not exist yet, compared by their whole definition.

        Returns:
            The meters with their ids, in the order given.
        """
        existing = list(self.meters())
        return [next((m for m in existing if m == meter), None) or self.create_meter(meter) for meter in meters]

    def meters(self, *, archived: bool = False) -> Iterator[Meter]:
        """All meters that are in use, or all that are archived."""
        number = 0
        while True:
            query = {"archived": str(archived).lower(), "page_size": _PAGE_SIZE, "page_number": number}
            items = self._call("GET", "/meters", query)["items"]
            yield from map(_meter, items)
            if len(items) < _PAGE_SIZE:
                return
            number += 1

    def archive_meter(self, meter_id: str) -> None:
        """Archive a meter: it is no longer in use."""
        self._call("DELETE", f"/meters/{quote(meter_id, safe='')}")

    def unarchive_meter(self, meter_id: str) -> None:
        """Take a meter back into use."""
        self._call("POST", f"/meters/{quote(meter_id, safe='')}/unarchive")

    def is_local(self) -> bool:
        """Whether a local metering API answers here: one with the additions under /local."""
        try:
            return bool(self._call("GET", "/local/health")["status"] == "ok")
        except (APIError, UnreachableError, TypeError, KeyError):
            return False

    def usage(self, meter_id: str, *, customer_id: str | None = None) -> Decimal:
        """What a meter reads: a local addition, which the hosted API does not have.

        Args:
            meter_id: The meter.
            customer_id: Only this customer's usage.
        """
        return _decimal(self._call("GET", *_usage(meter_id, customer_id))["quantity"])

    def usage_by_customer(self, meter_id: str) -> dict[str, Decimal]:
        """What a meter reads of each customer, by customer id: a local addition."""
        return _by_customer(self._call("GET", *_usage(meter_id, None)))

    def now(self) -> datetime:
        """The time by the test clock of a local metering API; by this machine's clock where the API has none."""
        try:
            return parse_timestamp(self._call("GET", _CLOCK)["now"])
        except APIError as error:
            return _machine_time(error)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MeteringClient({self._settings!r})"


class AsyncMeteringClient:
    """The client of the metering API for asyncio; arguments (`pace` aside) and errors as `MeteringClient`."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 10.0,
        retries: int = 3,
        longest_pause: float = _LONGEST_DELAY,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = _Settings(url, key, timeout, retries, longest_pause)
        self._transport = transport
        self._http = httpx.AsyncClient(transport=transport, **self._settings.http)
        self._sleep = sleep or _asyncio_sleep

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client from METERING_API_URL and METERING_API_KEY; the options are those of the class.

        Raises:
            ConfigurationError: One of the two is not set.
        """
        return cls(*environment(), **options)

    async def _call(self, method: str, path: str, query: Mapping[str, Any] | None = None, **body: Any) -> Any:
        request = self._http.build_request(method, path, params=query, **body)
        attempt = 0
        while True:
            try:
                outcome: httpx.Response | httpx.RequestError = await self._http.send(request)
            except httpx.RequestError as error:
                outcome = error
            delay = self._settings.delay(attempt, outcome)
            if delay is None:
                return self._settings.answer(outcome)
            await self._sleep(delay)
            attempt += 1

    async def ingest(self, events: Sequence[Event]) -> IngestResult:
        """Send up to 1,000 events; all are stored, or none. Errors as `MeteringClient.ingest`."""
        return _ingested(await self._call("POST", _INGEST, **_ingest_body(events)))

    async def ingest_once(self, body: bytes) -> Answer:
        """Send a body of `POST /events/ingest` once, as `MeteringClient.ingest_once`."""
        try:
            outcome: httpx.Response | Exception = await self._http.post(_INGEST, content=body, headers=_JSON)
        except Exception as error:  # noqa: BLE001  # whatever it is, the events were not acknowledged
            outcome = error
        return self._settings.ingest_answer(outcome)

    def renewed(self) -> AsyncMeteringClient:
        """A client with the same settings and connections of its own, for a forked process."""
        return AsyncMeteringClient(**self._settings.arguments, transport=self._transport, sleep=self._sleep)

    def blocking(self) -> MeteringClient:
        """A client with the same settings for where no event loop runs, as at the end of the interpreter."""
        shared = self._transport if isinstance(self._transport, httpx.BaseTransport) else None
        return MeteringClient(**self._settings.arguments, transport=shared)

    async def events(
        self,
        *,
        customer_id: str | None = None,
        event_name: str | None = None,
        meter_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> AsyncIterator[Event]:
        """All stored events that match; arguments as `MeteringClient.events`."""
        pages = _Pages(_event_query(customer_id, event_name, meter_id, start, end))
        while pages.more:
            for event in pages.take(await self._call("GET", "/events", pages.query)):
                yield event

    async def event(self, event_id: str) -> Event:
        """One event, as `MeteringClient.event`."""
        return Event.from_wire(await self._call("GET", f"/events/{quote(event_id, safe='')}"), strict=False)

    async def meters(self, *, archived: bool = False) -> AsyncIterator[Meter]:
        """All meters that are in use, or all that are archived."""
        number = 0
        while True:
            query = {"archived": str(archived).lower(), "page_size": _PAGE_SIZE, "page_number": number}
            items = (await self._call("GET", "/meters", query))["items"]
            for item in items:
                yield _meter(item)
            if len(items) < _PAGE_SIZE:
                return
            number += 1

    async def create_meter(self, meter: Meter) -> Meter:
        """Create a meter.

        Returns:
            The meter with its id.
        """
        return _meter(await self._call("POST", "/meters", json=meter.to_wire()))

    async def ensure_meters(self, meters: Iterable[Meter]) -> list[Meter]:
        """Create those meters that do not exist yet, as `MeteringClient.ensure_meters`."""
        existing = [meter async for meter in self.meters()]
        return [next((m for m in existing if m == meter), None) or await self.create_meter(meter) for meter in meters]

    async def archive_meter(self, meter_id: str) -> None:
        """Archive a meter: it is no longer in use."""
        await self._call("DELETE", f"/meters/{quote(meter_id, safe='')}")

    async def unarchive_meter(self, meter_id: str) -> None:
        """Take a meter back into use."""
        await self._call("POST", f"/meters/{quote(meter_id, safe='')}/unarchive")

    async def usage(self, meter_id: str, *, customer_id: str | None = None) -> Decimal:
        """What a meter reads: a local addition, as `MeteringClient.usage`."""
        return _decimal((await self._call("GET", *_usage(meter_id, customer_id)))["quantity"])

    async def usage_by_customer(self, meter_id: str) -> dict[str, Decimal]:
        """What a meter reads of each customer, as `MeteringClient.usage_by_customer`."""
        return _by_customer(await self._call("GET", *_usage(meter_id, None)))

    async def now(self) -> datetime:
        """The time by the metering API's clock, as `MeteringClient.now`."""
        try:
            return parse_timestamp((await self._call("GET", _CLOCK))["now"])
        except APIError as error:
            return _machine_time(error)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncMeteringClient({self._settings!r})"


class _Pages:
    """The pages of one listing of events.

    Events that arrive while it is read push others onto later pages: the end is fixed by the first page, and
    what was seen is not given again.
    """

    def __init__(self, filters: dict[str, Any]) -> None:
        self.query = {**filters, "page_size": _PAGE_SIZE, "page_number": 0}
        self.more = True
        self._seen: set[str] = set()

    def take(self, page: Any) -> list[Event]:
        events = [Event.from_wire(item, strict=False) for item in page["items"]]
        if events and "end" not in self.query:
            self.query["end"] = format_timestamp(events[0].timestamp + timedelta(milliseconds=1))
        self.more = len(events) == _PAGE_SIZE
        self.query["page_number"] += 1
        fresh = [event for event in events if event.event_id not in self._seen]
        self._seen.update(event.event_id for event in fresh)
        return fresh


def environment() -> tuple[str, str]:
    """METERING_API_URL and METERING_API_KEY.

    Raises:
        ConfigurationError: One of the two is not set.
    """
    url, key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
    if url and key:
        return url, key
    missing = " and ".join(name for name, value in ((URL_VARIABLE, url), (KEY_VARIABLE, key)) if not value)
    raise ConfigurationError(
        f"{missing} not set. The client needs {URL_VARIABLE} and {KEY_VARIABLE}: run `meterprint up`, which "
        "starts a metering API on this machine and prints both, or set them to those of your account"
    )


def _ingest_body(events: Sequence[Event]) -> dict[str, Any]:
    try:
        check_batch(events)
    except AttributeError:
        raise ValidationError([Problem("/events", "not a sequence of Event objects")]) from None
    body = json.dumps({"events": [event.to_wire() for event in events]}, separators=(",", ":"), allow_nan=False)
    return {"content": body.encode(), "headers": _JSON}


def _ingested(body: Any) -> IngestResult:
    if not isinstance(body, dict) or not isinstance(body.get("ingested_count"), int):
        raise APIError(200, "UNKNOWN", "the answer has no ingested_count: is this a metering API?")
    return IngestResult(body["ingested_count"], body.get("duplicate_count", 0))


def _event_query(
    customer_id: str | None, event_name: str | None, meter_id: str | None, start: datetime | None, end: datetime | None
) -> dict[str, Any]:
    query = {
        "customer_id": customer_id,
        "event_name": event_name,
        "meter_id": meter_id,
        "start": format_timestamp(start) if start else None,
        "end": format_timestamp(end) if end else None,
    }
    return {name: value for name, value in query.items() if value is not None}


def _usage(meter_id: str, customer_id: str | None) -> tuple[str, dict[str, str]]:
    query = {} if customer_id is None else {"customer_id": customer_id}
    return f"/local/meters/{quote(meter_id, safe='')}/usage", query


# What recording does not need is loaded where it is used: importing the package stays cheap.


def _meter(data: object) -> Meter:
    from .meter import Meter

    return Meter.from_wire(data, strict=False)


def _decimal(text: str) -> Decimal:
    from decimal import Decimal

    return Decimal(text)


def _by_customer(usage: Any) -> dict[str, Decimal]:
    return {customer["customer_id"]: _decimal(customer["quantity"]) for customer in usage["customers"]}


def _machine_time(error: APIError) -> datetime:
    if error.status != 404:
        raise error
    return utc_now()


async def _asyncio_sleep(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that an answer asks to wait, or None.

    Retry-After is a number or a date (RFC 9110 section 10.2.3); X-RateLimit-Reset counts only on a 429, as seconds
    from now or, where it is that large, since 1970.
    """
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    if moment := _parsed_date(value):
        return max(moment - time.time(), 0.0)
    reset = response.headers.get("X-RateLimit-Reset", "")
    if response.status_code != 429 or not reset.isdigit():
        return None
    return max(float(reset) - time.time(), 0.0) if len(reset) > 9 else float(reset)


def _date(response: httpx.Response) -> float | None:
    return _parsed_date(response.headers.get("Date", ""))


def _parsed_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None
