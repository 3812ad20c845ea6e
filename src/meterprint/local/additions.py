"""What the local metering API has beyond the contract, all under /local."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ..errors import Problem, ValidationError
from ..event import format_timestamp, shown
from ..meter import Meter
from . import usage
from .answers import find_meter
from .billing import LATEST, bounded, invoice_preview, put_subscription, time_in
from .live import FAULTS, Fault, Live, Lives
from .requests import fields_of, json_of, ledger_of, query_of
from .store import Store

_PING = 15  # seconds between two signs of life on a silent stream
_LONGEST = 10 * 366 * 86_400  # seconds that a clock may be advanced by at once
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Additions:
    """The paths under /local."""

    def __init__(self, store: Store, clock: Callable[[], datetime], lives: Lives) -> None:
        self._store = store
        self._clock = clock
        self._lives = lives
        self._started = time.monotonic()

    def routes(self) -> list[BaseRoute]:
        """Every path under /local."""
        return [
            Route("/local/health", self.health),
            Route("/local/meters/preview", self.preview, methods=["POST"]),
            Route("/local/meters/{meter_id}/usage", self.usage),
            Route("/local/invoice-preview", self.invoice_preview, methods=["POST"]),
            Route("/local/subscriptions/{subscription_id}", self.put_subscription, methods=["PUT"]),
            Route("/local/rejections", self.rejections),
            Route("/local/stream", self.stream),
            Route("/local/faults", self.list_faults),
            Route("/local/faults", self.set_fault, methods=["POST"]),
            Route("/local/clock", self.read_clock),
            Route("/local/clock", self.set_clock, methods=["POST"]),
            Route("/local/reset", self.reset, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        """Version, uptime, and the number of events stored. Needs no key."""
        query_of(request)
        return JSONResponse(
            {
                "status": "ok",
                "version": version("meterprint"),
                "uptime_seconds": round(time.monotonic() - self._started, 3),
                "events_stored": self._store.count_events(),
            }
        )

    async def usage(self, request: Request) -> Response:
        """What a meter reads: in all, by customer, by window of time, by metadata value."""
        ledger = ledger_of(request)
        meter = find_meter(self._store, ledger, request.path_params["meter_id"]).meter
        question = usage.Question.of(query_of(request, *usage.PARAMETERS))
        return JSONResponse(usage.answer(meter, usage.read(self._store, ledger, meter, question), question))

    async def preview(self, request: Request) -> Response:
        """What a meter would read of the events that are stored, before it is created."""
        ledger = ledger_of(request)
        question = usage.Question.of(query_of(request, *usage.PARAMETERS))
        meter = Meter.from_wire(await json_of(request))
        named, matching = usage.matching(self._store, ledger, meter, question.selection)
        reading = usage.answer(meter, usage.read(self._store, ledger, meter, question), question)
        return JSONResponse({**reading, "named_count": named, "matching_count": matching})

    async def invoice_preview(self, request: Request) -> Response:
        """What usage would cost: quantities times prices, as invoice lines that explain themselves."""
        ledger = ledger_of(request)
        query_of(request)
        return JSONResponse(invoice_preview(self._store, ledger, await json_of(request)))

    async def put_subscription(self, request: Request) -> Response:
        """Say whom a subscription bills, from when on, and at which prices: its usage history follows from that."""
        ledger = ledger_of(request)
        query_of(request)
        subscription_id = request.path_params["subscription_id"]
        return JSONResponse(put_subscription(self._store, ledger, subscription_id, await json_of(request)))

    async def rejections(self, request: Request) -> Response:
        """The latest requests that were refused, with their reasons."""
        query_of(request)
        live = self._lives.get(ledger_of(request))
        return JSONResponse({"items": list(live.rejections) if live else []})

    async def stream(self, request: Request) -> Response:
        """What happens, as it happens: events stored, duplicates, requests refused, as server-sent events."""
        live = self._lives[ledger_of(request)]
        query_of(request)
        messages = live.messages(self._lives, live.now(self._clock))
        return StreamingResponse(_sent(messages), media_type="text/event-stream", headers=_STREAM_HEADERS)

    async def list_faults(self, request: Request) -> Response:
        """The faults that the next requests will get."""
        query_of(request)
        live = self._lives.get(ledger_of(request))
        return JSONResponse(_pending(live.faults if live else []))

    async def set_fault(self, request: Request) -> Response:
        """Let the next requests fail: an error status, a hang, a broken connection."""
        live = self._lives[ledger_of(request)]
        query_of(request)
        fault = _fault(await json_of(request))
        if fault.times:
            live.faults.append(fault)
        else:
            live.faults = [other for other in live.faults if other.kind != fault.kind]
        return JSONResponse(_pending(live.faults))

    async def read_clock(self, request: Request) -> Response:
        """What time it is in this ledger."""
        query_of(request)
        return JSONResponse(self._time(self._lives[ledger_of(request)]))

    async def set_clock(self, request: Request) -> Response:
        """Set the test clock, advance it, or return to real time."""
        live = self._lives[ledger_of(request)]
        query_of(request)
        body = fields_of(await json_of(request), ("now", "advance"))
        if len(body) != 1:
            raise ValidationError([Problem("", 'give either "now" or "advance"')])
        if "now" in body:
            live.frozen = bounded(time_in(body, "now"), "/now")
        else:
            seconds = _number(body["advance"], "/advance", 0, _LONGEST)
            live.frozen = _later(live.now(self._clock), seconds)
        answer = self._time(live)
        live.tell("clock", {"at": answer["now"], **answer})
        return JSONResponse(answer)

    def _time(self, live: Live) -> dict[str, Any]:
        return {"now": format_timestamp(live.now(self._clock)), "frozen": live.frozen is not None}

    async def reset(self, request: Request) -> Response:
        """Empty the ledger of this key, and forget its clock, faults and refusals."""
        ledger = ledger_of(request)
        query_of(request)
        self._store.reset(ledger)
        if live := self._lives.get(ledger):
            live.reset()
            live.tell("reset", {"at": format_timestamp(live.now(self._clock))})
        return Response(status_code=204)


async def _sent(messages: AsyncIterator[tuple[str, Any]]) -> AsyncIterator[str]:
    """Messages in the format of server-sent events (html.spec.whatwg.org/multipage/server-sent-events.html)."""
    silent = 0
    async for kind, message in messages:
        silent = 0 if kind else silent + 1
        if kind:
            yield f"event: {kind}\ndata: {json.dumps(message)}\n\n"
        elif silent % _PING == 0:
            yield ": still here\n\n"


def _pending(faults: list[Fault]) -> dict[str, Any]:
    return {
        "pending": [
            {"kind": f.kind, "times": f.times, "retry_after": f.retry_after, "seconds": f.seconds} for f in faults
        ]
    }


def _fault(body: Any) -> Fault:
    fields = fields_of(body, ("kind", "times", "retry_after", "seconds"), required=("kind",))
    if fields["kind"] not in FAULTS:
        raise ValidationError([Problem("/kind", f"{shown(fields['kind'])} is none of {', '.join(FAULTS)}")])
    return Fault(
        fields["kind"],
        int(_number(fields.get("times", 1), "/times", 0, 1_000, whole=True)),
        int(_number(fields.get("retry_after", 1), "/retry_after", 0, 3_600, whole=True)),
        _number(fields.get("seconds", 30), "/seconds", 0, 3_600),
    )


def _number(value: Any, pointer: str, least: float, most: float, *, whole: bool = False) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or (whole and value % 1):
        kind = "whole number" if whole else "number"
        raise ValidationError([Problem(pointer, f"{shown(value)} is not a {kind} from {least:,} to {most:,}")])
    return float(value)


def _later(now: datetime, seconds: float) -> datetime:
    if seconds > (LATEST - now).total_seconds():
        raise ValidationError([Problem("/advance", f"leads beyond the year {LATEST.year}")])
    return now + timedelta(seconds=seconds)
