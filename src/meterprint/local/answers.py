"""Writing answers: what every endpoint of the local metering API shares."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from ..errors import APIError, ValidationError
from ..event import format_timestamp, from_micros, shown
from .store import Record, Store, StoredMeter, StoreError

_STATUS = {"INVALID_REQUEST_BODY": 422}
_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def find_meter(store: Store, ledger: str, meter_id: str) -> StoredMeter:
    """The meter with this id.

    Raises:
        APIError: There is none.
    """
    for stored in store.meters(ledger):
        if stored.meter.id == meter_id:
            return stored
    raise APIError(404, "NOT_FOUND", f"no meter with the id {shown(meter_id)}")


def event_answer(record: Record, business_id: str) -> dict[str, Any]:
    """An event as answers show it."""
    return {
        "event_id": record.event_id,
        "business_id": business_id,
        "customer_id": record.customer_id,
        "event_name": record.event_name,
        "timestamp": format_timestamp(from_micros(record.timestamp)),
        "metadata": dict(record.metadata) or None,
    }


def meter_answer(stored: StoredMeter, business_id: str) -> dict[str, Any]:
    """A meter as answers show it."""
    return {
        "id": stored.meter.id,
        "business_id": business_id,
        **stored.meter.to_wire(),
        "created_at": format_timestamp(stored.created_at),
        "updated_at": format_timestamp(stored.updated_at),
    }


def error_body(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body that answer an error."""
    if isinstance(error, ValidationError):
        first, *others = error.problems
        message = str(first) + (f" (and {len(others):,} more)" if others else "")
        details = [{"pointer": problem.pointer, "reason": problem.reason} for problem in error.problems]
        return _STATUS.get(first.code, 400), {"code": first.code, "message": message, "details": details}
    if isinstance(error, APIError):
        return error.status, {"code": error.code, "message": error.message}
    if isinstance(error, StoreError):
        return 503, {"code": "INTERNAL_SERVER_ERROR", "message": f"{error}. Nothing of this request was stored"}
    return 500, {
        "code": "INTERNAL_SERVER_ERROR",
        "message": "the local metering API failed: its log says where",
    }


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an exception."""
    status, body = error_body(error)
    return JSONResponse(body, status)


async def answer_http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "INVALID_REQUEST_BODY")
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = JSONResponse({"code": code, "message": message}, error.status_code)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """What a path takes: the framework names the methods of its first route only."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
