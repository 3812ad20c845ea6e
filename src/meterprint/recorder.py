"""Delivery in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from .client import AsyncMeteringClient
from .errors import APIError
from .event import MAX_EVENTS, Event

_REFUSED = frozenset({400, 413, 422})  # the events are at fault, not the moment
_logger = logging.getLogger("meterprint")


class AsyncRecorder:
    """Delivers events from an asyncio application in batches, without ever making it wait.

    Use it as `async with recorder:` around the life of the application. At the end it delivers what is left.
    Events are held in memory: those not yet delivered are lost when the process is killed.

    Args:
        client: The client to send with; closed at the end.
        max_buffered: How many events to hold while the metering API does not answer. One more is dropped,
            with an error in the log.
        retry_after: Seconds between tries, once the client's own retries are used up.
        shutdown_timeout: Seconds that the end may take.
        sleep: How to wait between tries; for tests.
    """

    def __init__(
        self,
        client: AsyncMeteringClient,
        *,
        max_buffered: int = 100_000,
        retry_after: float = 5.0,
        shutdown_timeout: float = 10.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._queue: asyncio.Queue[Event] = asyncio.Queue(max_buffered)
        self._retry_after = retry_after
        self._shutdown_timeout = shutdown_timeout
        self._sleep = sleep

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A recorder to METERING_API_URL with METERING_API_KEY; the options are those of the class.

        Raises:
            ConfigurationError: One of the two is not set.
        """
        return cls(AsyncMeteringClient.from_env(), **options)

    def record(self, event: Event) -> None:
        """Take an event, at once. Call it in the thread of the event loop."""
        if self._queue.full():
            _logger.error("event %s dropped: %d events wait already", event.event_id, self._queue.qsize())
        else:
            self._queue.put_nowait(event)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        drained = asyncio.create_task(self._queue.join())
        await asyncio.wait([drained], timeout=self._shutdown_timeout)
        if not drained.done():
            drained.cancel()
            _logger.error("the metering API does not answer: events are lost at the end of the application")
        self._task.cancel()
        await self._client.aclose()

    async def _run(self) -> None:
        while True:
            taken = [await self._queue.get()]
            while len(taken) < MAX_EVENTS and not self._queue.empty():
                taken.append(self._queue.get_nowait())
            # An event that was recorded twice is sent once: a batch that repeats an id is refused whole.
            await self._deliver(list({event.event_id: event for event in taken}.values()))
            for _ in taken:
                self._queue.task_done()

    async def _deliver(self, batch: Sequence[Event]) -> None:
        """Send a batch until it is stored: the ids stay the same, so no event is billed twice."""
        while True:
            try:
                await self._client.ingest(batch)
            except Exception as error:  # noqa: BLE001  # whatever it is, the events stay, and delivery goes on
                if isinstance(error, APIError) and error.status in _REFUSED:
                    return await self._isolate(batch, error)
                _logger.warning("%d events not delivered, trying again: %s", len(batch), error)
                await self._sleep(self._retry_after)
            else:
                return None

    async def _isolate(self, batch: Sequence[Event], error: APIError) -> None:
        """Find the events that the API refuses, by halves, and deliver the others."""
        if len(batch) == 1:
            _logger.error("event %s refused: %s", batch[0].event_id, error)
            return
        middle = len(batch) // 2
        await self._deliver(batch[:middle])
        await self._deliver(batch[middle:])
