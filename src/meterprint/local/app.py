"""The metering API as one ASGI application: the contract here, the additions under /local in `additions`.

Endpoints are coroutines that wait for nothing but the request's body, so that the application also runs where there
are no threads; the stream and a hang, which do wait, need a server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from ..errors import APIError, Problem, ValidationError
from ..event import Event, format_timestamp, shown, utc_now
from ..meter import Meter
from . import ingest
from .additions import Additions
from .answers import answer_error, answer_http, error_body, event_answer, find_meter, meter_answer
from .billing import usage_history
from .live import DROP, TIERS, Fault, Lives, RateLimit, pause
from .requests import (
    body_of,
    business_of,
    choice,
    fields_of,
    json_of,
    ledger_of,
    page_of,
    query_of,
    selection_of,
)
from .standins import standins
from .store import Record, Store, StoredMeter, StoreError
from .warnings import warnings_for

Endpoint = Callable[[Request, str], Awaitable[Response]]

_CHANGEABLE = ("name", "measurement_unit", "description")
_FIXED = ("event_name", "aggregation", "filter")
_SHOWN_EVENTS = 20  # of one ingest, to listeners
_KEPT_DETAILS = 100  # of one refusal
_IDLE = 0.25  # seconds without an ingest, after which totals are brought up to date
_DASHBOARD = Path(__file__).parent / "dashboard"
_DASHBOARD_FILES = {path.name for path in _DASHBOARD.iterdir()}
_DASHBOARD_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def create_app(
    store: Store,
    *,
    clock: Callable[[], datetime] = utc_now,
    rate_limit: str | None = None,
    body_timeout: float = 30.0,
) -> Starlette:
    """The metering API over a store.

    Args:
        store: Where events and meters are kept.
        clock: What time it is, with a UTC offset; a ledger's test clock goes before it.
        rate_limit: `tier0` to hold each key to 40 requests a second and 240 a minute, as the hosted API does.
        body_timeout: Seconds within which a body must come; then the request is answered with 408.
    """
    limit = RateLimit(*TIERS[rate_limit]) if rate_limit else None
    api = _API(store, clock, limit)
    app = Starlette(
        routes=[
            *api.routes(),
            *Additions(store, clock, api.lives).routes(),
            *_DASHBOARD_ROUTES,
            Mount("/standins", routes=standins()),
        ],
        exception_handlers={
            ValidationError: answer_error,
            APIError: answer_error,
            StoreError: answer_error,
            HTTPException: answer_http,
            ClientDisconnect: answer_http,
            Exception: answer_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.body_timeout = body_timeout
    app.state.stop = api.lives.close
    return app


class _API:
    """The paths that a hosted API has too."""

    def __init__(self, store: Store, clock: Callable[[], datetime], limit: RateLimit | None) -> None:
        self.lives = Lives()
        self._store = store
        self._clock = clock
        self._limit = limit
        self._idle: asyncio.TimerHandle | None = None

    def routes(self) -> list[BaseRoute]:
        """Every path of the contract."""
        return [
            self._route("/events/ingest", self.ingest, "POST"),
            self._route("/events", self.list_events),
            self._route("/events/{event_id:path}", self.get_event),
            self._route("/meters", self.create_meter, "POST"),
            self._route("/meters", self.list_meters),
            self._route("/meters/{meter_id}", self.get_meter),
            self._route("/meters/{meter_id}", self.update_meter, "PATCH"),
            self._route("/meters/{meter_id}", self.archive_meter, "DELETE"),
            self._route("/meters/{meter_id}/unarchive", self.unarchive_meter, "POST"),
            self._route("/subscriptions/{subscription_id}/usage-history", self.usage_history),
        ]

    def _route(self, path: str, endpoint: Endpoint, method: str = "GET") -> Route:
        async def handle(request: Request) -> Response:
            ledger = ledger_of(request)
            passes, headers = self._limit.take(ledger) if self._limit else (True, {})
            if not passes:
                error = APIError(429, "TOO_MANY_REQUESTS", "over the rate limit: wait as Retry-After says")
                response = self._refuse(request, ledger, error)
            else:
                response = await self._respond(request, ledger, endpoint)
            response.headers.update(headers)
            return response

        return Route(path, handle, methods=[method])

    async def _respond(self, request: Request, ledger: str, endpoint: Endpoint) -> Response:
        live = self.lives.get(ledger)
        fault = live.next_fault() if live else None
        if fault and fault.kind != "drop_after":
            return await self._fail(request, ledger, fault)
        try:
            response = await endpoint(request, ledger)
        except (ValidationError, APIError, StoreError) as error:
            response = self._refuse(request, ledger, error)
        return _dropped(request) if fault else response

    async def _fail(self, request: Request, ledger: str, fault: Fault) -> Response:
        if fault.kind == "drop_before":
            return _dropped(request)
        if fault.kind == "hang":
            await pause(fault.seconds, self.lives)
        status = 503 if fault.kind == "hang" else int(fault.kind)
        code = "TOO_MANY_REQUESTS" if status == 429 else "INTERNAL_SERVER_ERROR"
        error = APIError(status, code, "a fault that was asked for: POST /local/faults with times 0 ends it")
        response = self._refuse(request, ledger, error)
        if status != 500:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    def _refuse(self, request: Request, ledger: str, error: Exception) -> Response:
        """Answer an error, and keep what was refused."""
        status, body = error_body(error)
        live = self.lives[ledger]
        rejection = {
            "at": format_timestamp(live.now(self._clock)),
            "method": request.method,
            "path": request.url.path,
            "status": status,
            "code": body["code"],
            "message": body["message"],
            "details": body.get("details", [])[:_KEPT_DETAILS],
            "event_count": _count(getattr(request.state, "body", b"")),
        }
        live.rejections.appendleft(rejection)
        live.tell("refused", rejection)
        return JSONResponse(body, status)

    def _now(self, ledger: str) -> datetime:
        live = self.lives.get(ledger)
        return live.now(self._clock) if live else self._clock()

    async def ingest(self, request: Request, ledger: str) -> Response:
        """Store 1 to 1,000 events: all of them, or none."""
        query_of(request)
        request.state.body = body = await body_of(request)
        records = ingest.read(body, self._now(ledger))
        known = self._store.add_events(ledger, records)
        answer: dict[str, Any] = {"ingested_count": len(records) - len(known), "duplicate_count": len(known)}
        if warnings := warnings_for(records, self._store.meters(ledger)):
            answer["warnings"] = warnings
        self._tell_stored(ledger, records, known, warnings)
        self._catch_up_when_idle()
        return JSONResponse(answer)

    def _tell_stored(
        self, ledger: str, records: Sequence[Record], known: Sequence[str], warnings: Sequence[Mapping[str, str]]
    ) -> None:
        live = self.lives.get(ledger)
        if not live or not live.listeners:
            return
        at, business = format_timestamp(live.now(self._clock)), business_of(ledger)
        seen = set(known)
        fresh = [record for record in records if record.event_id not in seen]
        if fresh:
            events = [event_answer(record, business) for record in fresh[-_SHOWN_EVENTS:]]
            shown_ids = {event["event_id"] for event in events}
            about = [warning for warning in warnings if warning["event_id"] in shown_ids]
            live.tell("stored", {"at": at, "count": len(fresh), "events": events, "warnings": about})
        if known:
            ids = list(known[:_SHOWN_EVENTS])
            live.tell("duplicate", {"at": at, "count": len(known), "event_ids": ids})

    def _catch_up_when_idle(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._idle:
            self._idle.cancel()
        self._idle = loop.call_later(_IDLE, self._catch_up, loop)

    def _catch_up(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._store.catch_up():
                self._idle = loop.call_later(0, self._catch_up, loop)
        except StoreError:
            return  # whoever reads a meter is told

    async def list_events(self, request: Request, ledger: str) -> Response:
        """List events, newest first, by customer, name, meter and time."""
        query = query_of(request, "customer_id", "event_name", "meter_id", "start", "end", "page_size", "page_number")
        selection = selection_of(query)
        meter = find_meter(self._store, ledger, query["meter_id"]).meter if "meter_id" in query else None
        if meter and selection.event_name not in (None, meter.event_name):
            reason = f"the meter counts {shown(meter.event_name)}: leave event_name out, or make it that"
            raise ValidationError([Problem("/event_name", reason, "INVALID_QUERY_PARAMS")])
        if meter:
            selection = replace(selection, event_name=meter.event_name)
        found = self._store.records(ledger, selection, newest_first=True)
        page = page_of((record for record in found if meter is None or meter.matches(record)), query)
        business = business_of(ledger)
        return JSONResponse({"items": [event_answer(record, business) for record in page]})

    async def get_event(self, request: Request, ledger: str) -> Response:
        """Read one event."""
        query_of(request)
        event_id = request.path_params["event_id"]
        if record := self._store.record(ledger, event_id):
            return JSONResponse(event_answer(record, business_of(ledger)))
        raise APIError(404, "NOT_FOUND", f"no event with the id {shown(event_id)}")

    async def create_meter(self, request: Request, ledger: str) -> Response:
        """Create a meter."""
        query_of(request)
        meter = replace(Meter.from_wire(await json_of(request)), id="mtr_" + Event.new_id().replace("-", ""))
        now = self._now(ledger)
        stored = StoredMeter(meter, now, now)
        self._put(ledger, stored)
        return JSONResponse(meter_answer(stored, business_of(ledger)), 201)

    async def list_meters(self, request: Request, ledger: str) -> Response:
        """List the meters that are in use, or those that are archived."""
        query = query_of(request, "archived", "page_size", "page_number")
        archived = choice(query, "archived", {"true": True, "false": False}, default=False)
        chosen = (stored for stored in self._store.meters(ledger) if stored.archived is archived)
        business = business_of(ledger)
        return JSONResponse({"items": [meter_answer(stored, business) for stored in page_of(chosen, query)]})

    async def get_meter(self, request: Request, ledger: str) -> Response:
        """Read one meter."""
        query_of(request)
        stored = find_meter(self._store, ledger, request.path_params["meter_id"])
        return JSONResponse(meter_answer(stored, business_of(ledger)))

    async def update_meter(self, request: Request, ledger: str) -> Response:
        """Change a meter's name, unit or description."""
        query_of(request)
        stored = find_meter(self._store, ledger, request.path_params["meter_id"])
        body = await json_of(request)
        if isinstance(body, dict) and (fixed := [key for key in _FIXED if key in body]):
            reason = f"never changes: only {', '.join(_CHANGEABLE)} do. Create another meter instead"
            raise ValidationError([Problem(f"/{key}", reason) for key in fixed])
        changes = fields_of(body, _CHANGEABLE)
        changed = replace(stored, meter=replace(stored.meter, **changes), updated_at=self._now(ledger))
        self._put(ledger, changed)
        return JSONResponse(meter_answer(changed, business_of(ledger)))

    async def archive_meter(self, request: Request, ledger: str) -> Response:
        """Archive a meter: it is no longer in use."""
        query_of(request)
        stored = find_meter(self._store, ledger, request.path_params["meter_id"])
        if stored.archived:
            raise APIError(404, "METER_IS_DELETED", f"the meter {stored.meter.id} is archived already")
        self._put(ledger, replace(stored, archived=True, updated_at=self._now(ledger)))
        return Response(status_code=204)

    async def unarchive_meter(self, request: Request, ledger: str) -> Response:
        """Take a meter back into use."""
        query_of(request)
        stored = find_meter(self._store, ledger, request.path_params["meter_id"])
        self._put(ledger, replace(stored, archived=False, updated_at=self._now(ledger)))
        return Response(status_code=200)

    def _put(self, ledger: str, stored: StoredMeter) -> None:
        self._store.put_meter(ledger, stored)
        if live := self.lives.get(ledger):
            live.tell("meters", {"at": format_timestamp(live.now(self._clock))})

    async def usage_history(self, request: Request, ledger: str) -> Response:
        """What a subscription used and owes, by billing period, newest first."""
        names = ("start_date", "end_date", "meter_id", "page_size", "page_number")
        query = query_of(request, *names)
        subscription_id = request.path_params["subscription_id"]
        return JSONResponse({"items": usage_history(self._store, ledger, subscription_id, query, self._now(ledger))})


def _count(body: bytes) -> int | None:
    """How many events a refused body holds, as far as that can be seen."""
    try:
        events = json.loads(body)["events"]
        return len(events) if isinstance(events, list) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _dropped(request: Request) -> Response:
    """Break the connection, where the server can; what is answered then goes nowhere."""
    if drop := request.scope.get("extensions", {}).get(DROP):
        drop()
        return Response(status_code=204)
    return JSONResponse({"code": "INTERNAL_SERVER_ERROR", "message": "this server cannot break a connection"}, 500)


async def dashboard(request: Request) -> Response:
    """Show the dashboard."""
    name = request.path_params.get("name", "index.html")
    if name not in _DASHBOARD_FILES:
        raise HTTPException(404)
    return FileResponse(_DASHBOARD / name, headers=_DASHBOARD_HEADERS)


_DASHBOARD_ROUTES = [
    Route("/dashboard", dashboard),
    Route("/dashboard/{name}", dashboard),
    Route("/dashboard/", RedirectResponse("/dashboard")),
    Route("/", RedirectResponse("/dashboard")),
]
