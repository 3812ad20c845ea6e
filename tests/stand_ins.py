"""Metering APIs that are not like ours: hosted ones, and broken ones. Each is ours behind something."""

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from meterprint.local.app import create_app
from meterprint.local.store import MemoryStore


class Watch:
    """A clock in seconds that moves when somebody sleeps, and a little with each look at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Hosted:
    """A metering API with nothing under /local, with a rate limit, and whose events are not visible at once.

    Args:
        app: The metering API behind it; ours, if not given.
        clock: What time it is, in seconds.
        limits: How many requests there may be in how many seconds: those of the hosted tier 0, if not given.
        delay: Seconds until the events that were sent are listed.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        limits: tuple[tuple[int, float], ...] = ((40, 1.0), (240, 60.0)),
        delay: float = 0.0,
    ) -> None:
        self._app = app or create_app(MemoryStore())
        self._clock = clock
        self._limits = limits
        self._delay = delay
        self._visible = float("-inf")
        self._times: deque[float] = deque()
        self.answered = self.refused = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        now = self._clock()
        if (wait := self._wait(now)) > 0:
            self.refused += 1
            headers = {"retry-after": str(int(wait) + 1), "x-ratelimit-remaining": "0"}
            await _answer(send, 429, {"code": "TOO_MANY_REQUESTS", "message": "slow down"}, headers)
            return
        self._times.append(now)
        self.answered += 1
        if scope["path"].startswith("/local"):
            await _answer(send, 404, {"code": "NOT_FOUND", "message": "nothing here"})
        elif scope["path"] == "/events" and now < self._visible:
            await _answer(send, 200, {"items": []})
        else:
            if scope["path"] == "/events/ingest":
                self._visible = now + self._delay
            await self._app(scope, receive, send)

    def _wait(self, now: float) -> float:
        waits = [0.0]
        for count, seconds in self._limits:
            recent = [at for at in self._times if at > now - seconds]
            if len(recent) >= count:
                waits.append(recent[-count] + seconds - now)
        return max(waits)


class Broken:
    """A metering API that does not do what it should.

    Args:
        events: What becomes of the events of a request before they are stored.
        query: What becomes of the query of a request.
        quantity: What becomes of what a meter reads.
    """

    def __init__(
        self,
        *,
        events: Callable[[list[Any]], list[Any]] | None = None,
        query: Callable[[dict[str, str]], dict[str, str]] | None = None,
        quantity: Callable[[str], str] | None = None,
    ) -> None:
        self._app = create_app(MemoryStore())
        self._events, self._query, self._quantity = events, query, quantity

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._query:
            query = urlencode(self._query(dict(parse_qsl(scope["query_string"].decode()))))
            scope = {**scope, "query_string": query.encode()}
        if self._events and scope["path"] == "/events/ingest":
            receive = await _changed_body(receive, self._events)
        if self._quantity and scope["path"].endswith("/usage"):
            send = _changed_answer(send, self._quantity)
        await self._app(scope, receive, send)


async def _changed_body(receive: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    changed = json.dumps({"events": change(json.loads(body)["events"])}).encode()

    async def again() -> Any:
        return {"type": "http.request", "body": changed, "more_body": False}

    return again


def _changed_answer(send: Any, change: Callable[[str], str]) -> Any:
    start: dict[str, Any] = {}

    async def changed(message: Any) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        body = json.loads(message["body"])
        content = json.dumps({**body, "quantity": change(body["quantity"])}).encode()
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return changed


async def _answer(send: Any, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    pairs = {"content-type": "application/json", **(headers or {})}
    encoded = [(name.encode(), value.encode()) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
