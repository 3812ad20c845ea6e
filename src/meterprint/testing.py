"""The metering API inside a test's own process."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx

from .client import MeteringClient
from .event import Event
from .local.app import create_app
from .local.live import DROP
from .local.store import MemoryStore
from .meter import Meter


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

    It needs neither threads nor an event loop (which `httpx.ASGITransport` does), so that synchronous and
    asynchronous clients reach the same application, inside a running event loop too.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, in one step."""
        messages: list[dict[str, Any]] = []
        dropped: list[bool] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.read(), "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        scope = {**_scope(request), "extensions": {DROP: lambda: dropped.append(True)}}
        call = self._app(scope, receive, send)
        try:
            call.send(None)
        except StopIteration:
            if dropped:
                raise httpx.RemoteProtocolError("the connection was broken", request=request) from None
            start, *bodies = messages
            content = b"".join(message.get("body", b"") for message in bodies)
            return httpx.Response(start["status"], headers=start["headers"], content=content, request=request)
        call.close()
        raise httpx.ReadTimeout("no answer: the application waits for something outside of it", request=request)


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0),
        "root_path": "",
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
