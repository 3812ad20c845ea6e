"""The API gateway blueprint: bill an HTTP API by request, by endpoint and by bytes sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from decimal import Decimal
from typing import Any, TypeAlias

from ..blueprint import Blueprint, EventType, Field, Sample
from ..event import MetadataValue
from ..meter import Aggregation, Condition, Filter, Meter
from ..pricing import Price
from ..recorder import AsyncRecorder, Recorder

REQUEST = EventType(
    name="api.request",
    meaning="Once for each request of an authenticated customer, when its response is complete.",
    fields=(
        Field("endpoint", "string", "The route template, never the URL with its ids.", "/v1/orders/{order_id}"),
        Field("method", "string", "The HTTP method, in capitals.", "GET"),
        Field("status_code", "integer", "The HTTP status code of the response.", 200),
        Field("duration_ms", "number", "From the first byte in to the last byte out.", 12.5, "ms", measured=True),
        Field(
            "request_bytes", "integer", "The size of the request's body, by Content-Length, else as read.", 0, "byte"
        ),
        Field("response_bytes", "integer", "The size of the response's body, as sent.", 2048, "byte"),
        Field("api_version", "string", "The version of the API, if it has more than one.", "2026-11", required=False),
        Field("operation", "string", "The name of the GraphQL operation.", "ListOrders", required=False),
    ),
)

_SERVED = (Condition("status_code", "less_than", 500), Condition("status_code", "not_equals", 429))
_BILLABLE = Filter("and", (*_SERVED, Condition("endpoint", "not_equals", "/health")))
_PREMIUM = Filter(
    "or",
    (
        Condition("endpoint", "equals", "/v1/search"),
        Condition("endpoint", "equals", "/v1/reports/{report_id}"),
    ),
)

BLUEPRINT = Blueprint(
    slug="api_gateway",
    title="API gateway",
    summary="Bill an HTTP API by request, by endpoint and by bytes sent.",
    events=(REQUEST,),
    meters=(
        Meter(
            name="API requests",
            event_name=REQUEST.name,
            aggregation=Aggregation("count"),
            measurement_unit="request",
            filter=_BILLABLE,
            description="Every request but health checks, refusals for the rate (429) and our own failures (5xx).",
        ),
        Meter(
            name="Orders created",
            event_name=REQUEST.name,
            aggregation=Aggregation("count"),
            measurement_unit="order",
            filter=Filter(
                "and",
                (
                    Condition("method", "equals", "POST"),
                    Condition("endpoint", "equals", "/v1/orders"),
                    Condition("status_code", "less_than", 400),
                ),
            ),
            description="Only successful POST /v1/orders.",
        ),
        Meter(
            name="Premium requests",
            event_name=REQUEST.name,
            aggregation=Aggregation("count"),
            measurement_unit="request",
            filter=Filter("and", (_PREMIUM, Filter("and", _SERVED))),
            description="Search and reports, at a price on top of the request.",
        ),
        Meter(
            name="Response bytes",
            event_name=REQUEST.name,
            aggregation=Aggregation("sum", "response_bytes"),
            measurement_unit="byte",
            filter=_BILLABLE,
            description="The bytes of all response bodies that are billed.",
        ),
    ),
    prices=(
        Price("API requests", Decimal("0.2"), free_threshold=Decimal(1000)),
        Price("Orders created", Decimal(1)),
        Price("Premium requests", Decimal(5)),
        Price("Response bytes", Decimal("0.000000009"), free_threshold=Decimal(1_000_000_000)),
    ),
    samples=(
        Sample(REQUEST.name, REQUEST.sample(endpoint="/v1/orders/{order_id}"), times=2400),
        Sample(
            REQUEST.name,
            REQUEST.sample(
                endpoint="/v1/orders", method="POST", status_code=201, request_bytes=256, response_bytes=512
            ),
            times=60,
        ),
        Sample(REQUEST.name, REQUEST.sample(endpoint="/v1/reports/{report_id}", response_bytes=50_000_000), times=40),
        Sample(REQUEST.name, REQUEST.sample(endpoint="/v1/orders", status_code=429, response_bytes=64), times=20),
        Sample(REQUEST.name, REQUEST.sample(endpoint="/v1/orders", status_code=503, response_bytes=64), times=5),
        Sample(REQUEST.name, REQUEST.sample(endpoint="/health", response_bytes=15), times=100),
    ),
    quantities={
        "API requests": Decimal(2500),
        "Orders created": Decimal(60),
        "Premium requests": Decimal(40),
        "Response bytes": Decimal(2_004_945_920),
    },
    invoice_total=569,
)

UNMATCHED = "(unmatched)"

# The types of ASGI 3.0 (asgiref.readthedocs.io/en/latest/specs/main.html).
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_logger = logging.getLogger("meterprint")


def customer_from_state(scope: Scope) -> str | None:
    """The customer that authentication left in `request.state.customer_id`, or None."""
    customer_id: str | None = scope.get("state", {}).get("customer_id")
    return customer_id


class UsageMiddleware:
    """ASGI middleware that records one `api.request` event for each request of a known customer.

    It never changes, delays or fails a response: the event is recorded when the last byte was handed to the
    server, and an error in recording is logged. A request without a customer is not billed. An exception in the
    application counts as status 500, like a response that was broken off before its status.

    Args:
        app: The application.
        recorder: Takes each event.
        customer: Gives the customer of a request after it was handled, or None. It must come from
            authentication, never from what the request claims.
    """

    def __init__(
        self,
        app: ASGIApp,
        recorder: Recorder | AsyncRecorder,
        customer: Callable[[Scope], str | None] = customer_from_state,
    ) -> None:
        self.app = app
        self._recorder = recorder
        self._customer = customer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(scope)

        async def counted_receive() -> Message:
            message = await receive()
            request.received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                request.status_code = message["status"]
            elif message["type"] == "http.response.body":
                request.sent += len(message.get("body", b""))
                if not message.get("more_body", False):
                    self._finish(request)

        try:
            await self.app(scope, counted_receive, counted_send)
        finally:
            self._finish(request)

    def _finish(self, request: _Request) -> None:
        if request.finished:
            return
        request.finished = True
        try:
            if customer_id := self._customer(request.scope):
                self._recorder.record(REQUEST.name, customer_id=customer_id, metadata=request.metadata())
        except Exception:
            _logger.exception("a request was not metered")


class _Request:
    """What is measured of one request."""

    __slots__ = ("_root", "_start", "finished", "received", "scope", "sent", "status_code")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.status_code = 500
        self.received = self.sent = 0
        self.finished = False
        self._root = scope.get("root_path", "")
        self._start = time.perf_counter()

    def metadata(self) -> dict[str, MetadataValue]:
        return {
            "endpoint": self._endpoint(),
            "method": self.scope["method"],
            "status_code": self.status_code,
            "duration_ms": round((time.perf_counter() - self._start) * 1000, 3),
            "request_bytes": self._declared_length() or self.received,
            "response_bytes": self.sent,
        }

    def _declared_length(self) -> int:
        values = [value for name, value in self.scope["headers"] if name == b"content-length"]
        return int(values[0]) if values and values[0].isdigit() else 0

    def _endpoint(self) -> str:
        path = getattr(self.scope.get("route"), "path", None)
        if path is None:
            return UNMATCHED
        mounted_at = self.scope.get("root_path", "").removeprefix(self._root)
        return f"{mounted_at}{path}"
