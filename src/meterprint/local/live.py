"""What the local metering API knows of a ledger only while it runs: clock, refusals, faults, listeners."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from ..event import format_timestamp

FAULTS = ("500", "503", "429", "hang", "drop_before", "drop_after")
DROP = "meterprint.drop"  # the ASGI extension that breaks a connection
_KEPT_REJECTIONS = 100
_WAITING = 1_000  # messages of one listener that does not read; more are dropped


@dataclass(slots=True)
class Fault:
    """What the next requests get instead of, or after, what they asked for.

    Attributes:
        kind: One of `FAULTS`.
        times: How many requests.
        retry_after: Seconds in Retry-After, of 429 and 503.
        seconds: How long a hang lasts.
    """

    kind: str
    times: int = 1
    retry_after: int = 1
    seconds: float = 30.0


@dataclass(slots=True)
class Live:
    """The state of one ledger."""

    frozen: datetime | None = None
    rejections: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_REJECTIONS))
    faults: list[Fault] = field(default_factory=list[Fault])
    listeners: set[asyncio.Queue[tuple[str, Any]]] = field(default_factory=set[Any])

    def now(self, clock: Callable[[], datetime]) -> datetime:
        """What time it is in this ledger."""
        return self.frozen or clock()

    def next_fault(self) -> Fault | None:
        """The fault of this request; it is used up by that."""
        if not self.faults:
            return None
        fault = self.faults[0]
        fault.times -= 1
        if not fault.times:
            self.faults.pop(0)
        return fault

    def tell(self, kind: str, message: Mapping[str, Any]) -> None:
        """Give a message to each listener; one that does not read misses it."""
        for listener in self.listeners:
            if not listener.full():
                listener.put_nowait((kind, message))

    async def messages(self, lives: Lives, now: datetime) -> AsyncIterator[tuple[str, Any]]:
        """The messages from now on, until the server stops; an empty kind in each second without one."""
        listener: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(_WAITING)
        self.listeners.add(listener)
        try:
            yield "hello", {"at": format_timestamp(now)}
            while not lives.is_closing:
                try:
                    async with asyncio.timeout(1):
                        message = await listener.get()
                except TimeoutError:
                    message = "", None
                yield message
        finally:
            self.listeners.discard(listener)

    def reset(self) -> None:
        """Forget everything but the listeners."""
        self.frozen = None
        self.rejections.clear()
        self.faults.clear()


async def pause(seconds: float, lives: Lives) -> None:
    """Wait, until the server stops; where there is no event loop, whoever drives the application sees that it waits."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await _Never()
    end = time.monotonic() + seconds
    while not lives.is_closing and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110  # set by another thread
        await asyncio.sleep(min(left, 0.25))


class _Never:
    def __await__(self) -> Generator[None, None, None]:
        yield


class Lives(defaultdict[str, Live]):
    """The state of each ledger."""

    def __init__(self) -> None:
        super().__init__(Live)
        self.is_closing = False

    def close(self) -> None:
        """End every stream within a second, so that the server can stop."""
        self.is_closing = True


class RateLimit:
    """So many requests in a second and in a minute, for each ledger, in windows that begin with the first request.

    Args:
        per_second: The burst.
        per_minute: The rate.
        clock: Seconds; for tests.
    """

    def __init__(self, per_second: int, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = ((1.0, per_second), (60.0, per_minute))
        self._clock = clock
        self._used: dict[tuple[str, float], tuple[float, int]] = {}

    def take(self, ledger: str) -> tuple[bool, dict[str, str]]:
        """Whether this request may pass, and the headers that say what is left."""
        now = self._clock()
        if len(self._used) > 10_000:
            self._used = {key: used for key, used in self._used.items() if now < used[0] + key[1]}
        states: list[tuple[int, float, int]] = []
        for length, limit in self._limits:
            start, used = self._used.get((ledger, length), (now, 0))
            if now >= start + length:
                start, used = now, 0
            self._used[ledger, length] = start, used
            states.append((limit - used, start + length - now, limit))
        passes = all(left > 0 for left, _, _ in states)
        if passes:
            for length, _ in self._limits:
                start, used = self._used[ledger, length]
                self._used[ledger, length] = start, used + 1
        spent = [state for state in states if state[0] <= 0]
        left, reset, limit = max(spent, key=itemgetter(1)) if spent else min(states)
        seconds = str(math.ceil(reset))
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(left - passes),
            "X-RateLimit-Reset": seconds,
        }
        return passes, headers if passes else {**headers, "Retry-After": seconds}


TIERS = {"tier0": (40, 240)}
