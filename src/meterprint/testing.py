"""The metering API inside a test's own process."""

from __future__ import annotations

from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, TypeVar

import httpx

from .client import MeteringClient
from .event import Event
from .local.app import create_app
from .local.store import MemoryStore
from .meter import Meter

T = TypeVar("T")


class MeteringAPI:
    """A metering API of one test, empty at its start.

    Attributes:
        url: What METERING_API_URL is set to.
        key: What METERING_API_KEY is set to.
        app: The ASGI application.
    """

    def __init__(self) -> None:
        self.url = "http://metering-api.test"
        self.key = "test-key"
        self.app = create_app(MemoryStore())
        self._client = MeteringClient(self.url, self.key, retries=0, transport=InProcess(self.app))

    @property
    def events(self) -> list[Event]:
        """All events that are stored, oldest first."""
        return list(self._client.events())[::-1]

    @property
    def meters(self) -> list[Meter]:
        """All meters that are in use, in the order of their creation."""
        return list(self._client.meters())

    def usage(self, meter: Meter, *, customer_id: str | None = None) -> Decimal:
        """What a meter reads; it is created if the API does not have it yet.

        Args:
            meter: The meter, as defined or as the API returned it.
            customer_id: Only this customer's usage.
        """
        (created,) = self._client.ensure_meters([meter])
        return self._client.usage(created.id or "", customer_id=customer_id)


class InProcess(httpx.BaseTransport):
    """Carries requests into an ASGI application that never waits for anything outside of it.

    It needs neither threads nor an event loop: synchronous and asynchronous clients reach the same application.
    """

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request whose body has been read."""
        content = request.read()
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        answer = _finished(self._transport.handle_async_request(copy))
        return httpx.Response(answer.status_code, headers=answer.headers, content=_finished(answer.aread()))


def _finished(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the application waited for something outside of it")
