"""What the tests of the LLM blueprint share: stand-ins, a meter, and the ledger that it fills."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from llm_shapes import CLIENTS, Buckets, Shape, closed, used_up
from meterprint import Event, MeteringClient, Recorder
from meterprint.blueprints.llm import BLUEPRINT, LLMMeter
from meterprint.local.server import Server
from meterprint.local.standins import HEADER, standins
from meterprint.testing import InProcess, MeteringAPI


@contextmanager
def serving() -> Iterator[str]:
    """The stand-ins over HTTP; gives their address."""
    gc.freeze()  # the SDKs' many objects, which would make each collection in a test slow
    with Server(Starlette(routes=[Mount("/standins", routes=standins())])) as server:
        yield f"{server.url}/standins"
    gc.unfreeze()


@dataclass
class Bench:
    """A meter, the clients that it wraps, and what came of their calls.

    Attributes:
        url: The address of the stand-ins.
        api: Has the ledger.
        recorder: Sends to it.
        meter: Records for cus_ada.
        made: The clients to be closed.
    """

    url: str
    api: MeteringAPI
    recorder: Recorder
    meter: LLMMeter
    made: list[Any] = field(default_factory=list)

    def make(self, name: str) -> Any:
        """A synchronous client, closed at the end."""
        self.made.append(CLIENTS[name].sync(self.url))
        return self.made[-1]

    def wrapped(self, name: str, **options: Any) -> Any:
        """The same, wrapped."""
        return self.meter.wrap(self.make(name), **options)

    def recorded(self) -> list[Event]:
        """Delivers what was recorded, and gives it."""
        assert self.recorder.flush()
        events = self.api.events
        for event in events:
            BLUEPRINT.check(event)
        return events

    def only(self) -> Event:
        """The one event that was recorded."""
        (event,) = self.recorded()
        return event


@contextmanager
def working(url: str, *, strict: bool = True) -> Iterator[Bench]:
    """A bench for one test."""
    api = MeteringAPI()
    client = MeteringClient(api.url, api.key, transport=InProcess(api.app))
    with Recorder(client, strict=strict, interval=60) as recorder:
        bench = Bench(url, api, recorder, LLMMeter(recorder, customer_id="cus_ada"))
        yield bench
        for made in bench.made:
            asyncio.run(closed(made))


def buckets(event: Event) -> Buckets:
    """The five numbers of an event."""
    names = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    return tuple(event.metadata[name] for name in names)  # type: ignore[return-value]


def asked(shape: Shape, client: Any) -> Any:
    """All that a synchronous client's answer gives."""
    return asyncio.run(used_up(shape.ask(client, ""), shape.how))


def standin(words: str) -> dict[str, str]:
    """The header that asks something of a stand-in."""
    return {HEADER: words}
