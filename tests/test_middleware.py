"""UsageMiddleware: every request of a customer is counted right, and none is disturbed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from meterprint import Event
from meterprint.blueprints.api_gateway import BLUEPRINT, UNMATCHED, UsageMiddleware


async def order(request: Request) -> Response:
    request.state.customer_id = "cus_ada"
    return JSONResponse({"id": request.path_params["order_id"]})


async def upload(request: Request) -> Response:
    request.state.customer_id = "cus_ada"
    await request.body()
    return Response(status_code=204)


async def stream(request: Request) -> Response:
    request.state.customer_id = "cus_ada"

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 100

    return StreamingResponse(chunks())


async def broken_off(request: Request) -> Response:
    request.state.customer_id = "cus_ada"

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise RuntimeError("the source went away")

    return StreamingResponse(chunks())


async def crash(request: Request) -> Response:
    request.state.customer_id = "cus_ada"
    raise RuntimeError("a bug")


async def refused(request: Request) -> Response:
    request.state.customer_id = "cus_ada"
    raise HTTPException(403)


async def anonymous(request: Request) -> Response:
    return Response("hello")


ROUTES = [
    Route("/orders/{order_id}", order),
    Route("/upload", upload, methods=["POST"]),
    Route("/stream", stream),
    Route("/broken", broken_off),
    Route("/crash", crash),
    Route("/refused", refused),
    Route("/anonymous", anonymous),
    Mount("/v2", routes=[Route("/orders/{order_id}", order)]),
]


def send(method: str, path: str, record: Callable[[Event], None], **options: Any) -> httpx.Response:
    customer = {"customer": options.pop("customer")} if "customer" in options else {}
    app = Starlette(routes=ROUTES, middleware=[Middleware(UsageMiddleware, record=record, **customer)])

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, path, **options)

    return asyncio.run(main())


def recorded(method: str, path: str, **options: Any) -> dict[str, Any]:
    events: list[Event] = []
    send(method, path, events.append, **options)
    (event,) = events
    BLUEPRINT.check(event)
    assert event.customer_id == "cus_ada"
    duration = event.metadata["duration_ms"]
    assert isinstance(duration, float)
    assert duration >= 0
    return {key: value for key, value in event.metadata.items() if key != "duration_ms"}


def test_a_request_is_recorded_with_its_route_template() -> None:
    assert recorded("GET", "/orders/7?page=2") == {
        "endpoint": "/orders/{order_id}",
        "method": "GET",
        "status_code": 200,
        "request_bytes": 0,
        "response_bytes": len('{"id":"7"}'),
    }


def test_a_mounted_application_keeps_its_prefix() -> None:
    assert recorded("GET", "/v2/orders/7")["endpoint"] == "/v2/orders/{order_id}"


def test_a_request_body_is_counted_with_and_without_content_length() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a" * 300
        yield b"b" * 200

    assert recorded("POST", "/upload", content=b"x" * 1234)["request_bytes"] == 1234
    assert recorded("POST", "/upload", content=chunks())["request_bytes"] == 500


def test_every_chunk_of_a_stream_is_counted_once() -> None:
    assert recorded("GET", "/stream")["response_bytes"] == 500


def test_a_stream_that_breaks_off_counts_what_was_sent() -> None:
    metadata = recorded("GET", "/broken")
    assert (metadata["status_code"], metadata["response_bytes"]) == (200, 100)


def test_a_crash_counts_as_500() -> None:
    assert recorded("GET", "/crash")["status_code"] == 500


def test_a_refusal_counts_with_its_status() -> None:
    assert recorded("GET", "/refused")["status_code"] == 403


def test_a_request_without_a_customer_is_not_recorded() -> None:
    events: list[Event] = []
    assert send("GET", "/anonymous", events.append).text == "hello"
    assert events == []


def test_a_path_that_no_route_matches_is_one_endpoint() -> None:
    metadata = recorded("GET", "/secret/path/9", customer=lambda scope: "cus_ada")
    assert (metadata["endpoint"], metadata["status_code"]) == (UNMATCHED, 404)


def test_an_error_in_recording_is_logged_and_the_response_goes_out(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("the queue is gone")

    assert send("GET", "/orders/7", fail).json() == {"id": "7"}
    assert "a request was not metered" in caplog.text


def test_an_error_in_finding_the_customer_is_logged_and_the_response_goes_out(caplog: pytest.LogCaptureFixture) -> None:
    def fail(scope: Any) -> str:
        raise KeyError("claims")

    assert send("GET", "/orders/7", lambda event: None, customer=fail).status_code == 200
    assert "a request was not metered" in caplog.text


def test_each_request_has_an_id_of_its_own() -> None:
    events: list[Event] = []
    for _ in range(3):
        send("GET", "/orders/7", events.append, headers={"X-Request-ID": "same"})
    assert len({event.event_id for event in events}) == 3


def test_what_is_not_http_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    middleware = UsageMiddleware(app, record=lambda event: None)
    asyncio.run(middleware({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
