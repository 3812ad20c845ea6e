"""UsageMiddleware: every request of a customer is counted right, and none is disturbed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeAlias

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from meterprint import Recorder
from meterprint.blueprints.api_gateway import BLUEPRINT, UNMATCHED, UsageMiddleware
from meterprint.testing import MeteringAPI

Send: TypeAlias = Callable[..., httpx.Response]
Recorded: TypeAlias = Callable[..., dict[str, Any]]


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


@pytest.fixture
def send(metering_api: MeteringAPI) -> Iterator[Send]:
    """Sends a request to the application, and delivers what was recorded."""
    with Recorder.from_env(strict=True) as recorder:

        def send(method: str, path: str, options: Mapping[str, Any], **of_middleware: Any) -> httpx.Response:
            middleware = Middleware(UsageMiddleware, **{"recorder": recorder, **of_middleware})
            app = Starlette(routes=ROUTES, middleware=[middleware])

            async def main() -> httpx.Response:
                transport = httpx.ASGITransport(app, raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                    return await client.request(method, path, **options)

            response = asyncio.run(main())
            assert recorder.flush()
            return response

        yield send


@pytest.fixture
def recorded(send: Send, metering_api: MeteringAPI) -> Recorded:
    """Sends a request, and gives the metadata of the one event that it left."""

    def recorded(method: str, path: str, customer: Any = None, **options: Any) -> dict[str, Any]:
        before = metering_api.events
        send(method, path, options, **({"customer": customer} if customer else {}))
        (event,) = metering_api.events[len(before) :]
        BLUEPRINT.check(event)
        assert event.customer_id == "cus_ada"
        duration = event.metadata["duration_ms"]
        assert isinstance(duration, float)
        assert duration >= 0
        return {key: value for key, value in event.metadata.items() if key != "duration_ms"}

    return recorded


def test_a_request_is_recorded_with_its_route_template(recorded: Recorded) -> None:
    assert recorded("GET", "/orders/7?page=2") == {
        "endpoint": "/orders/{order_id}",
        "method": "GET",
        "status_code": 200,
        "request_bytes": 0,
        "response_bytes": len('{"id":"7"}'),
    }


def test_a_mounted_application_keeps_its_prefix(recorded: Recorded) -> None:
    assert recorded("GET", "/v2/orders/7")["endpoint"] == "/v2/orders/{order_id}"


def test_a_request_body_is_counted_with_and_without_content_length(recorded: Recorded) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a" * 300
        yield b"b" * 200

    assert recorded("POST", "/upload", content=b"x" * 1234)["request_bytes"] == 1234
    assert recorded("POST", "/upload", content=chunks())["request_bytes"] == 500


def test_every_chunk_of_a_stream_is_counted_once(recorded: Recorded) -> None:
    assert recorded("GET", "/stream")["response_bytes"] == 500


def test_a_stream_that_breaks_off_counts_what_was_sent(recorded: Recorded) -> None:
    metadata = recorded("GET", "/broken")
    assert (metadata["status_code"], metadata["response_bytes"]) == (200, 100)


def test_a_crash_counts_as_500(recorded: Recorded) -> None:
    assert recorded("GET", "/crash")["status_code"] == 500


def test_a_refusal_counts_with_its_status(recorded: Recorded) -> None:
    assert recorded("GET", "/refused")["status_code"] == 403


def test_a_request_without_a_customer_is_not_recorded(send: Send, metering_api: MeteringAPI) -> None:
    assert send("GET", "/anonymous", {}).text == "hello"
    assert metering_api.events == []


def test_a_path_that_no_route_matches_is_one_endpoint(recorded: Recorded) -> None:
    metadata = recorded("GET", "/secret/path/9", customer=lambda scope: "cus_ada")
    assert (metadata["endpoint"], metadata["status_code"]) == (UNMATCHED, 404)


def test_an_error_in_recording_is_logged_and_the_response_goes_out(
    send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    closed = Recorder.from_env()
    closed.close()
    assert send("GET", "/orders/7", {}, recorder=closed).json() == {"id": "7"}
    assert "a request was not metered" in caplog.text


def test_an_error_in_finding_the_customer_is_logged_and_the_response_goes_out(
    send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(scope: Any) -> str:
        raise KeyError("claims")

    assert send("GET", "/orders/7", {}, customer=fail).status_code == 200
    assert "a request was not metered" in caplog.text


def test_each_request_has_an_id_of_its_own(send: Send, metering_api: MeteringAPI) -> None:
    for _ in range(3):
        send("GET", "/orders/7", {"headers": {"X-Request-ID": "same"}})
    assert len({event.event_id for event in metering_api.events}) == 3


def test_what_is_not_http_passes_through(metering_api: MeteringAPI) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    with Recorder.from_env() as recorder:
        middleware = UsageMiddleware(app, recorder)
        asyncio.run(middleware({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
