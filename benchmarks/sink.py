"""A metering API for every client that is compared, which counts what reaches it and fails on request."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import re
import signal
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from importlib import import_module
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from meterprint.event import NEWEST, OLDEST, parse_timestamp
from meterprint.local.server import Server


class Arrived(NamedTuple):
    """What the sink looks at in an event."""

    number: int
    poisoned: bool
    timestamp: str | None = None


@dataclass(frozen=True)
class Vendor:
    """How one vendor's ingest request is read and answered.

    Attributes:
        read: The events in a body.
        answer: The success answer, from the number of new events and of repeated ones.
        mark: What stands once in each event of a body, to count them without reading it.
    """

    read: Callable[[bytes], list[Arrived]]
    answer: Callable[[int, int], Response]
    mark: bytes


@dataclass
class Mode:
    """What the sink does to ingest requests; the faults may be combined.

    Attributes:
        count_only: Count requests, bytes and events, and answer success without reading the events.
        fail_seconds: Answer `status` until so many seconds after the first request.
        status: The status of those answers.
        retry_after: Answer the first `times` requests 429, with this many seconds as Retry-After.
        cut_after_commit: Store so many requests, and close their connections without an answer.
        hang_seconds: Read the first `times` requests, and do nothing for so long.
        times: How many requests `retry_after` and `hang_seconds` concern.
        poison: Refuse a request that holds a poisoned event, whole.
        pointers: Name the poisoned events in the refusal.
        clock_offset: Seconds that the sink's clock is ahead; Meterprint's timestamps are held against it.
        rate_limit: Take 40 requests in a second, and 240 in a minute.
    """

    count_only: bool = False
    fail_seconds: float = 0
    status: int = 500
    retry_after: int | None = None
    cut_after_commit: int = 0
    hang_seconds: float = 0
    times: int = 1
    poison: bool = False
    pointers: bool = False
    clock_offset: float | None = None
    rate_limit: bool = False


@dataclass
class Bucket:
    """Tokens for requests, all of them back whenever the window ends."""

    size: int
    seconds: float
    tokens: int = 0
    ends: float = 0.0

    def refill(self, now: float) -> None:
        """Start the next window, if this one is over."""
        if now >= self.ends:
            self.tokens, self.ends = self.size, now + self.seconds


@dataclass
class Run:
    """What has happened since a mode was set."""

    requests: int = 0
    first: float = 0.0
    moments: list[float] = field(default_factory=list)
    cut: int = 0
    buckets: list[Bucket] = field(default_factory=lambda: [Bucket(40, 1), Bucket(240, 60)])


@dataclass
class Counts:
    """What has reached the sink.

    Attributes:
        requests: Requests, whatever became of them.
        bytes: Those of the bodies, as they were sent.
        events: Events in bodies that were only counted.
        repeated: Events that were there already.
        bodies_refused: Bodies refused for what they hold.
        numbers: The events that are there.
    """

    requests: int = 0
    bytes: int = 0
    events: int = 0
    repeated: int = 0
    bodies_refused: int = 0
    numbers: set[int] = field(default_factory=set)

    def store(self, events: Iterable[Arrived]) -> tuple[int, int]:
        """Store events; how many were new, and how many were there already."""
        new = repeated = 0
        for event in events:
            if event.number in self.numbers:
                repeated += 1
            else:
                self.numbers.add(event.number)
                new += 1
        self.repeated += repeated
        return new, repeated

    def shown(self) -> dict[str, int]:
        """The counts as `GET /control` answers them, and the processor time of this process so far."""
        return {
            "requests": self.requests,
            "stored": len(self.numbers),
            "repeated": self.repeated,
            "bytes": self.bytes,
            "events": self.events,
            "bodies_refused": self.bodies_refused,
            "cpu_ms": int(time.process_time() * 1000),
        }


def number_of(event_id: str) -> int:
    """The number of an event from any vendor's id: e12, e12 and a suffix, or a UUID of that value."""
    match = re.fullmatch(r"e(\d+)(_\w+)?", event_id)
    return int(match[1]) if match else uuid.UUID(event_id).int


def json_reader(events_key: str | None, id_key: str, pairs_key: str) -> Callable[[bytes], list[Arrived]]:
    """A reader of JSON: where the events stand, and in each its id and metadata."""

    def arrived(event: dict[str, Any]) -> Arrived:
        poisoned = (event.get(pairs_key) or {}).get("poison") in (True, "true")
        return Arrived(number_of(event[id_key]), poisoned, event.get("timestamp"))

    def read(body: bytes) -> list[Arrived]:
        value = json.loads(body)
        return [arrived(event) for event in (value[events_key] if events_key else value)]

    return read


def read_spans(body: bytes) -> list[Arrived]:
    """The events in an OTLP request."""
    service: Any = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    request = service.ExportTraceServiceRequest.FromString(body)
    return [span_event(s) for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


def span_event(span: Any) -> Arrived:
    """The event that a span stands for."""
    values = {pair.key: pair.value for pair in span.attributes}
    return Arrived(number_of(values["event_id"].string_value), "poison" in values and values["poison"].bool_value)


def answering(*names: str, **others: Any) -> Callable[[int, int], Response]:
    """A JSON answer: the names of the counts of new and repeated events, and fixed fields."""
    return lambda *counts: JSONResponse({**dict(zip(names, counts, strict=False)), **others})


VENDORS = {
    "/api/v1/events/batch": Vendor(
        json_reader("events", "transaction_id", "properties"), answering(events=[]), b'"transaction_id"'
    ),
    "/batch": Vendor(json_reader("batch", "uuid", "properties"), answering(status="Ok"), b'"distinct_id"'),
    "/events/ingest": Vendor(
        json_reader("events", "event_id", "metadata"), answering("ingested_count", "duplicate_count"), b'"event_id"'
    ),
    "/ingest": Vendor(
        json_reader(None, "uniqueId", "dimensions"), lambda *_: PlainTextResponse("Success"), b'"uniqueId"'
    ),
    "/v1/batch": Vendor(json_reader("batch", "messageId", "properties"), answering(success=True), b'"messageId"'),
    "/v1/events/ingest": Vendor(
        json_reader("events", "external_id", "metadata"),
        answering("inserted", "duplicates"),
        b'"external_customer_id"',
    ),
    # An empty ExportTraceServiceResponse.
    "/v1/traces": Vendor(read_spans, lambda *_: Response(b"", media_type="application/x-protobuf"), b"customer_id"),
}
METERPRINT = VENDORS["/events/ingest"]


def plain(body: bytes, encoding: str) -> bytes:
    """A body without its Content-Encoding."""
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


def problem(status: int, code: str, message: str, details: list[dict[str, str]] | None = None) -> Response:
    """An error answer."""
    return JSONResponse({"code": code, "message": message} | ({"details": details} if details else {}), status)


async def hung(request: Request, seconds: float) -> bool:
    """Do nothing for so long; whether the client has gone meanwhile."""
    with suppress(TimeoutError):
        await asyncio.wait_for(request.receive(), seconds)
        return True
    return False


async def drop(request: Request, send: Any) -> None:
    """Close the connection without an answer."""
    # ASGI has no word for this. uvicorn's `send` is a method of the object that holds the connection.
    send.__self__.transport.close()
    await request.receive()


class App:
    """The metering API, and `/control`, as an ASGI application."""

    def __init__(self) -> None:
        self.mode = Mode()
        self.run = Run()
        self.counts = Counts()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or drop it."""
        request = Request(scope, receive)
        try:
            answer = await self.answer(request, scope["path"].rstrip("/"))
        except ClientDisconnect:  # it died within the request
            return
        if answer:
            answer.headers["Date"] = formatdate(self.now(), usegmt=True)
            await answer(scope, receive, send)
        else:
            await drop(request, send)

    async def answer(self, request: Request, path: str) -> Response | None:
        """The answer to a request; None drops it."""
        if path == "/control":
            return await self.control(request)
        if vendor := VENDORS.get(path):
            return await self.ingest(vendor, request)
        return problem(404, "NOT_FOUND", f"no vendor has {path}")

    async def control(self, request: Request) -> Response:
        """Set the mode, where one is given; the counts."""
        if request.method == "POST":
            wanted = await request.json()
            counts = Counts() if wanted.pop("reset", False) else self.counts
            try:
                self.mode, self.run, self.counts = Mode(**wanted), Run(), counts
            except TypeError as error:
                return problem(400, "UNKNOWN_MODE", str(error))
        return JSONResponse(self.counts.shown())

    def now(self) -> float:
        """The sink's clock."""
        return time.time() + (self.mode.clock_offset or 0)

    async def ingest(self, vendor: Vendor, request: Request) -> Response | None:
        """Count a request, do to it what the mode says, and store its events."""
        body = await request.body()
        ordinal = self.count(body)
        encoding = request.headers.get("Content-Encoding", "")
        if self.mode.count_only:
            return self.counted(vendor, plain(body, encoding))
        if fault := self.turned_away(ordinal):
            return fault
        if ordinal < self.mode.times and self.mode.hang_seconds and await hung(request, self.mode.hang_seconds):
            return None
        try:
            return self.commit(vendor, vendor.read(plain(body, encoding)))
        except (KeyError, TypeError, ValueError) as error:
            return self.refused(problem(400, "INVALID_REQUEST_BODY", repr(error)))

    def count(self, body: bytes) -> int:
        """Count a request; how many there were before it in this mode."""
        self.counts.requests += 1
        self.counts.bytes += len(body)
        self.run.moments.append(time.monotonic())
        self.run.first = self.run.first or self.run.moments[0]
        self.run.requests += 1
        return self.run.requests - 1

    def counted(self, vendor: Vendor, body: bytes) -> Response:
        """The success answer to a body that is not read."""
        events = body.count(vendor.mark)
        self.counts.events += events
        return vendor.answer(events, 0)

    def turned_away(self, ordinal: int) -> Response | None:
        """The answer to a request that is not even read."""
        if time.monotonic() < self.run.first + self.mode.fail_seconds:
            return problem(self.mode.status, "X", "on purpose")
        if self.mode.retry_after is not None and ordinal < self.mode.times:
            answer = problem(429, "X", "on purpose")
            answer.headers["Retry-After"] = str(self.mode.retry_after)
            return answer
        return self.limited() if self.mode.rate_limit else None

    def limited(self) -> Response | None:
        """Take a token from each bucket, or answer when there are some again."""
        now = time.monotonic()
        for bucket in self.run.buckets:
            bucket.refill(now)
        empty = [bucket for bucket in self.run.buckets if not bucket.tokens]
        if not empty:
            for bucket in self.run.buckets:
                bucket.tokens -= 1
            return None
        answer = problem(429, "RATE_LIMITED", "too many requests")
        answer.headers["X-RateLimit-Limit"] = str(empty[-1].size)
        answer.headers["X-RateLimit-Remaining"] = "0"
        answer.headers["X-RateLimit-Reset"] = str(math.ceil(empty[-1].ends - now))
        return answer

    def refused(self, answer: Response) -> Response:
        """Count an answer that refuses a body for what it holds."""
        self.counts.bodies_refused += 1
        return answer

    def commit(self, vendor: Vendor, events: list[Arrived]) -> Response | None:
        """Store events, or refuse them all."""
        if refusal := self.refusal(vendor, events):
            return self.refused(refusal)
        stored = self.counts.store(events)
        if self.run.cut < self.mode.cut_after_commit:
            self.run.cut += 1
            return None
        return vendor.answer(*stored)

    def refusal(self, vendor: Vendor, events: list[Arrived]) -> Response | None:
        """The answer to events that are not fit to be stored."""
        if self.mode.clock_offset is not None and vendor is METERPRINT:
            stale = [f"/events/{i}/timestamp" for i, event in enumerate(events) if not self.current(event)]
            if stale:
                return problem(400, "INVALID_TIMESTAMP", "timestamp", details(stale, "not current"))
        poisoned = [f"/events/{i}/metadata/poison" for i, event in enumerate(events) if event.poisoned]
        if self.mode.poison and poisoned:
            return problem(400, "INVALID_METADATA", "poison", details(poisoned, "poison") * self.mode.pointers)
        return None

    def current(self, event: Arrived) -> bool:
        """Whether an event is of the time that the contract accepts; one without a time is of now."""
        now = datetime.fromtimestamp(self.now(), UTC)
        return event.timestamp is None or now - OLDEST <= parse_timestamp(event.timestamp) <= now + NEWEST


def details(pointers: list[str], reason: str) -> list[dict[str, str]]:
    """The places in a body that it was refused for."""
    return [{"pointer": pointer, "reason": reason} for pointer in pointers]


class Sink(Server):
    """The sink on a loopback port, in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.app = App()
        super().__init__(self.app, port)
        self._server.config.date_header = False  # the application sends its own
        self._server.config.timeout_keep_alive = 60  # some clients send every 5 s, which is uvicorn's limit


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port; 0 takes any that is free")
    with Sink(parser.parse_args().port) as sink, suppress(KeyboardInterrupt):
        print(f"url={sink.url}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
