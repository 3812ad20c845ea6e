"""The metering API as one ASGI application: the contract, and the local additions under /local.

Endpoints are coroutines that never wait for anything but the request's body, so that the application also runs
where there are no threads.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import APIError, Problem, ValidationError
from ..event import MAX_BODY_BYTES, MAX_EVENTS, Event, check_batch, format_timestamp, parse_timestamp, shown, utc_now
from ..meter import Meter
from .store import Selection, Store, StoredMeter
from .warnings import warnings_for

_STATUS = {"INVALID_REQUEST_BODY": 422}
_CHANGEABLE = ("name", "measurement_unit", "description")
_DASHBOARD = Path(__file__).parent / "dashboard"
_DASHBOARD_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def create_app(store: Store, *, clock: Callable[[], datetime] = utc_now) -> Starlette:
    """The metering API over a store.

    Args:
        store: Where events and meters are kept.
        clock: What time it is, with a UTC offset.
    """
    return Starlette(
        routes=_API(store, clock).routes(),
        exception_handlers={
            ValidationError: _answer_invalid,
            APIError: _answer_error,
            HTTPException: _answer_http,
            Exception: _answer_crash,
        },
    )


class _API:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._started = time.monotonic()

    def routes(self) -> list[BaseRoute]:
        """Every path; the first line of each endpoint's docstring stands on the site."""
        return [
            Route("/events/ingest", self.ingest, methods=["POST"]),
            Route("/events", self.list_events),
            Route("/events/{event_id:path}", self.get_event),
            Route("/meters", self.create_meter, methods=["POST"]),
            Route("/meters", self.list_meters),
            Route("/meters/{meter_id}", self.get_meter),
            Route("/meters/{meter_id}", self.update_meter, methods=["PATCH"]),
            Route("/meters/{meter_id}", self.archive_meter, methods=["DELETE"]),
            Route("/meters/{meter_id}/unarchive", self.unarchive_meter, methods=["POST"]),
            Route("/local/health", self.health),
            Route("/local/meters/{meter_id}/usage", self.usage),
            Route("/local/reset", self.reset, methods=["POST"]),
            Route("/dashboard", dashboard),
            Route("/dashboard/{name}", dashboard),
            Route("/", RedirectResponse("/dashboard")),
        ]

    async def ingest(self, request: Request) -> Response:
        """Store 1 to 1,000 events: all of them, or none."""
        ledger = _ledger(request)
        events = self._events_in(await _body(request))
        stored = self._store.add_events(ledger, events)
        answer: dict[str, Any] = {"ingested_count": stored, "duplicate_count": len(events) - stored}
        if warnings := warnings_for(events, self._store.meters(ledger)):
            answer["warnings"] = warnings
        return JSONResponse(answer)

    def _events_in(self, body: Any) -> list[Event]:
        items = body.get("events") if isinstance(body, dict) else None
        if not isinstance(items, list):
            raise ValidationError([Problem("/events", 'the body has the form {"events": [...]}')])
        if len(items) > MAX_EVENTS:
            check_batch(items)
        now = self._clock()
        events: list[Event] = []
        problems: list[Problem] = []
        for index, item in enumerate(items):
            try:
                events.append(_event_in(item, now))
            except ValidationError as error:
                problems += error.under(f"/events/{index}").problems
        if problems:
            raise ValidationError(problems)
        check_batch(events)
        return events

    async def list_events(self, request: Request) -> Response:
        """List events, newest first, by customer, name, meter and time."""
        ledger = _ledger(request)
        query = _query(request, "customer_id", "event_name", "meter_id", "start", "end", "page_size", "page_number")
        selection = _selection(query)
        meter = self._meter(ledger, query["meter_id"]).meter if "meter_id" in query else None
        if meter and selection.event_name not in (None, meter.event_name):
            reason = f"the meter counts {shown(meter.event_name)}: leave event_name out, or make it that"
            raise ValidationError([Problem("/event_name", reason, "INVALID_QUERY_PARAMS")])
        if meter:
            selection = replace(selection, event_name=meter.event_name)
        found = self._store.events(ledger, selection)
        chosen = (event for event in found if meter is None or meter.matches(event))
        business = _business(ledger)
        return JSONResponse({"items": [_event_answer(event, business) for event in _page(chosen, query)]})

    async def get_event(self, request: Request) -> Response:
        """Read one event."""
        ledger = _ledger(request)
        event_id = request.path_params["event_id"]
        if event := self._store.event(ledger, event_id):
            return JSONResponse(_event_answer(event, _business(ledger)))
        raise APIError(404, "NOT_FOUND", f"no event with the id {shown(event_id)}")

    async def create_meter(self, request: Request) -> Response:
        """Create a meter."""
        ledger = _ledger(request)
        meter = replace(Meter.from_wire(await _body(request)), id="mtr_" + Event.new_id().replace("-", ""))
        now = self._clock()
        stored = StoredMeter(meter, now, now)
        self._store.put_meter(ledger, stored)
        return JSONResponse(_meter_answer(stored, _business(ledger)), 201)

    async def list_meters(self, request: Request) -> Response:
        """List the meters that are in use, or those that are archived."""
        ledger = _ledger(request)
        query = _query(request, "archived", "page_size", "page_number")
        archived = {"true": True, "false": False}.get(query.get("archived", "false"))
        if archived is None:
            raise _bad_query("archived", f"{shown(query['archived'])} is neither true nor false")
        chosen = (stored for stored in self._store.meters(ledger) if stored.archived is archived)
        business = _business(ledger)
        return JSONResponse({"items": [_meter_answer(stored, business) for stored in _page(chosen, query)]})

    async def get_meter(self, request: Request) -> Response:
        """Read one meter."""
        ledger = _ledger(request)
        stored = self._meter(ledger, request.path_params["meter_id"])
        return JSONResponse(_meter_answer(stored, _business(ledger)))

    async def update_meter(self, request: Request) -> Response:
        """Change a meter's name, unit or description."""
        ledger = _ledger(request)
        stored = self._meter(ledger, request.path_params["meter_id"])
        body = await _body(request)
        if not isinstance(body, dict):
            raise ValidationError([Problem("", f"{shown(body)} is not a JSON object")])
        if fixed := [key for key in body if key not in _CHANGEABLE]:
            reason = f"never changes: only {', '.join(_CHANGEABLE)} do. Create another meter instead"
            raise ValidationError([Problem(f"/{key}", reason) for key in fixed])
        changed = replace(stored, meter=replace(stored.meter, **body), updated_at=self._clock())
        self._store.put_meter(ledger, changed)
        return JSONResponse(_meter_answer(changed, _business(ledger)))

    async def archive_meter(self, request: Request) -> Response:
        """Archive a meter: it is no longer in use."""
        ledger = _ledger(request)
        stored = self._meter(ledger, request.path_params["meter_id"])
        if stored.archived:
            raise APIError(404, "METER_IS_DELETED", f"the meter {stored.meter.id} is archived already")
        self._store.put_meter(ledger, replace(stored, archived=True, updated_at=self._clock()))
        return Response(status_code=204)

    async def unarchive_meter(self, request: Request) -> Response:
        """Take a meter back into use."""
        ledger = _ledger(request)
        stored = self._meter(ledger, request.path_params["meter_id"])
        self._store.put_meter(ledger, replace(stored, archived=False, updated_at=self._clock()))
        return Response(status_code=200)

    async def health(self, request: Request) -> Response:
        """Version, uptime, and the number of events stored. Needs no key."""
        return JSONResponse(
            {
                "status": "ok",
                "version": version("meterprint"),
                "uptime_seconds": round(time.monotonic() - self._started, 3),
                "events_stored": self._store.count_events(),
            }
        )

    async def usage(self, request: Request) -> Response:
        """What a meter reads, in all and by customer."""
        ledger = _ledger(request)
        meter = self._meter(ledger, request.path_params["meter_id"]).meter
        selection = _selection(_query(request, "customer_id", "start", "end"))
        found = self._store.events(ledger, replace(selection, event_name=meter.event_name), by_arrival=True)
        by_customer: defaultdict[str, list[Event]] = defaultdict(list)
        counted = [event for event in found if meter.matches(event)]
        for event in counted:
            by_customer[event.customer_id].append(event)
        customers = [
            {"customer_id": customer_id, "quantity": f"{meter.measure(events):f}"}
            for customer_id, events in sorted(by_customer.items())
        ]
        return JSONResponse(
            {
                "meter_id": meter.id,
                "name": meter.name,
                "measurement_unit": meter.measurement_unit,
                "quantity": f"{meter.measure(counted):f}",
                "customers": customers,
            }
        )

    async def reset(self, request: Request) -> Response:
        """Empty the ledger of this key."""
        self._store.reset(_ledger(request))
        return Response(status_code=204)

    def _meter(self, ledger: str, meter_id: str) -> StoredMeter:
        for stored in self._store.meters(ledger):
            if stored.meter.id == meter_id:
                return stored
        raise APIError(404, "NOT_FOUND", f"no meter with the id {shown(meter_id)}")


def _event_in(item: Any, now: datetime) -> Event:
    event = Event.from_wire(item, now=now)
    if problem := event.age_problem(now):
        raise ValidationError([problem])
    return event


async def dashboard(request: Request) -> Response:
    """Show the dashboard."""
    path = _DASHBOARD / request.path_params.get("name", "index.html")
    if path.parent != _DASHBOARD or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers=_DASHBOARD_HEADERS)


def _ledger(request: Request) -> str:
    """The ledger of a request's API key. The key itself is kept nowhere."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise APIError(401, "UNAUTHORIZED", "send your API key as the header `Authorization: Bearer <key>`")
    return hashlib.sha256(key.strip().encode()).hexdigest()[:16]


def _business(ledger: str) -> str:
    return f"bus_{ledger}"


async def _body(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        reason = f"the content type is {shown(kind)}: send the header `Content-Type: application/json`"
        raise ValidationError([Problem("", reason)])
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise APIError(413, "PAYLOAD_TOO_LARGE", "the body is over 5 MiB: send fewer events in a request")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValidationError([Problem("", "the JSON is nested too deep")]) from None
    except ValueError as error:
        raise ValidationError([Problem("", f"the body is not JSON: {error}")]) from None


def _query(request: Request, *known: str) -> dict[str, str]:
    for name in request.query_params:
        if name not in known:
            raise _bad_query(name, f"unknown parameter: the parameters are {', '.join(known)}")
    return dict(request.query_params)


def _bad_query(name: str, reason: str) -> ValidationError:
    return ValidationError([Problem(f"/{name}", reason, "INVALID_QUERY_PARAMS")])


def _selection(query: Mapping[str, str]) -> Selection:
    times: dict[str, datetime] = {}
    for name in ("start", "end"):
        try:
            if name in query:
                times[name] = parse_timestamp(query[name])
        except ValueError as error:
            raise _bad_query(name, str(error)) from None
    return Selection(query.get("customer_id"), query.get("event_name"), **times)


def _page(items: Any, query: Mapping[str, str]) -> Any:
    size = _number(query, "page_size", default=10, least=1, most=100)
    number = _number(query, "page_number", default=0, least=0, most=10**9)
    return islice(items, number * size, (number + 1) * size)


def _number(query: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise _bad_query(name, f"{shown(text)} is not a whole number from {least} to {most:,}")
    return int(text)


def _event_answer(event: Event, business_id: str) -> dict[str, Any]:
    return {**event.to_wire(), "business_id": business_id, "metadata": dict(event.metadata) or None}


def _meter_answer(stored: StoredMeter, business_id: str) -> dict[str, Any]:
    return {
        "id": stored.meter.id,
        "business_id": business_id,
        **stored.meter.to_wire(),
        "created_at": format_timestamp(stored.created_at),
        "updated_at": format_timestamp(stored.updated_at),
    }


def _error(status: int, code: str, message: str, problems: tuple[Problem, ...] = ()) -> Response:
    body: dict[str, Any] = {"code": code, "message": message}
    if problems:
        body["details"] = [{"pointer": problem.pointer, "reason": problem.reason} for problem in problems]
    return JSONResponse(body, status)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first, *others = error.problems
    message = str(first) + (f" (and {len(others):,} more)" if others else "")
    return _error(_STATUS.get(first.code, 400), first.code, message, error.problems)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return _error(error.status, error.code, error.message)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "INVALID_REQUEST_BODY")
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = _error(error.status_code, code, message)
    response.headers.update(error.headers or {})
    return response


async def _answer_crash(request: Request, error: Exception) -> Response:
    return _error(500, "INTERNAL_SERVER_ERROR", "the local metering API failed: its log says where")
