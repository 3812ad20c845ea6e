"""Delivery in the background, by threads or by asyncio."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from .client import Answer, AsyncMeteringClient, MeteringClient
from .delivery import Batch, Pause
from .errors import ConfigurationError
from .exits import end_with_multiprocessing
from .intake import ClientT, FullPolicy, Intake

if TYPE_CHECKING:
    import asyncio  # loaded where it is used: threads do without

_REQUEST_TIMEOUT = 5.0  # seconds: a try that hangs must leave room for another within a shutdown
_AFTER_BUG = Pause(5.0)
_LEAST = 0.05  # seconds: within less, no further try is begun

logger = logging.getLogger("meterprint")


class _GaveUpError(Exception):
    """The time for the end is up."""


class _Recorder(Intake[ClientT]):
    """What both do where no event loop runs: in threads, and at the ends of the process."""

    def _drive(self, batch: Batch, client: MeteringClient) -> None:
        """Take a batch through its steps."""
        steps = self._delivery.steps(batch)
        answer: Answer | None = None
        try:
            while True:
                step = steps.send(answer)
                answer = None
                if isinstance(step, Pause):
                    self._pause(step)
                else:
                    answer = client.ingest_once(step, timeout=self._time_for_a_try())
        except StopIteration:
            self._settle(batch)
        except _GaveUpError:
            self._give_up(batch)

    def _pause(self, pause: Pause) -> None:
        """Wait; a flush cuts it short, unless the metering API asked for it."""
        until = time.monotonic() + pause.seconds
        with self._changed:
            hurry = self._hurry
            while (left := self._left(until, pause)) > 0 and (pause.asked or self._hurry == hurry):
                until = time.monotonic() + left
                self._changed.wait(left)

    def _left(self, until: float, pause: Pause) -> float:
        """Seconds left of a pause, such that a try after it is in time for whoever waits.

        Raises:
            _GaveUpError: No try can be in time for the end.
        """
        now = time.monotonic()
        left = until - now
        if self._deadline is not None and self._deadline - now < (left if pause.asked else _LEAST):
            raise _GaveUpError
        remaining = (self._flush_until if self._deadline is None else self._deadline) - now
        return left if pause.asked or remaining < _LEAST else min(left, remaining / 2)

    def _time_for_a_try(self) -> float | None:
        if self._deadline is None:
            return None
        remaining = self._deadline - time.monotonic()
        if remaining < _LEAST:
            raise _GaveUpError
        return min(remaining, _REQUEST_TIMEOUT)

    def _drain(self, client: MeteringClient) -> None:
        """Send what is left in this thread, until the deadline."""
        for batch in list(self._unfinished):
            self._drive(batch, client)
        self._ready = deque(batch for batch in self._ready if batch in self._unfinished)


class Recorder(_Recorder[MeteringClient]):
    """Delivers events in the background by threads, and loses none.

    Make one for the process, and use it from any thread. Events go out in batches of up to 1,000, when one is full
    or every `interval`. What the metering API does not take for want of time is sent again, with the same ids; an
    event that it refuses becomes a dead letter, and the others of its batch are delivered.

    The rest is delivered at the end: of `with`, of the interpreter, and at SIGTERM where the application has no
    handler of its own (if made in the main thread). A forked child begins with an empty recorder.

    Args:
        client: The client to send with; closed at the end. Its `timeout` is that of each try.
        spool: A folder that keeps events until they are delivered. An event is in it before `record` returns, so that
            it survives `kill -9`; the next recorder with this folder sends it first. Processes may share it.
        strict: Raise for a bad event; else it becomes a dead letter. By default only in Python's development mode
            (`python -X dev`).
        interval: Seconds between two sendings of what is there.
        max_in_flight: How many requests may be under way at once.
        max_buffered: How many events memory holds.
        full: What happens to one more: "block" waits for room, for at most `block_timeout`, and then drops it; once a
            wait was in vain, nobody waits until there is room again. "spill" leaves it on disk alone. "drop" counts it
            in `stats.dropped`. By default "spill" with a spool, else "block".
        block_timeout: Seconds that `record` may wait for room.
        late: What happens to an event that waited for over an hour, which the metering API refuses: "dead_letter", or
            "restamp" with the current time (the metadata then keep `original_timestamp`).
        rollup: Sums up countable events before they are sent.
        shutdown_timeout: Seconds that the end may take.
        on_dead: Called with each `DeadLetter`, in the thread that delivers.
        on_problem: Called with each error that holds delivery up: no answer, a refused key, a wrong clock.
        clock: Nanoseconds since 1970; for tests.
        backoff: Seconds to wait after the n-th try; for tests.

    Raises:
        ConfigurationError: An option cannot be used; the spool cannot be written, or is none.
    """

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A recorder to METERING_API_URL with METERING_API_KEY; the options are those of the class.

        Raises:
            ConfigurationError: One of the two is not set, or an option cannot be used.
        """
        return cls(MeteringClient.from_env(timeout=_REQUEST_TIMEOUT), **options)

    def flush(self, timeout: float = 10.0) -> bool:
        """Send what is there now, and wait for it. Serverless functions call it before they freeze.

        Args:
            timeout: Seconds to wait; what is not delivered by then is kept, and sent later.

        Returns:
            Whether every event recorded so far is delivered, or a dead letter.
        """
        waited = self._hurry_up(timeout)
        self._signal()
        if not self._workers:
            self._drain_for(timeout)
        with self._changed:
            self._changed.wait_for(lambda: self._is_over(waited), timeout)
            return waited.isdisjoint(self._unfinished)

    def close(self) -> None:
        """Take no more events, and deliver those that are left, within `shutdown_timeout`."""
        if self._retired:
            return
        self.flush(self._begin_end())
        self._client.close()
        self._retire()

    _end = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._workers: list[threading.Thread] = []
        self._idle = 0
        super()._begin()
        if self._unfinished:
            self._signal()

    def _after_fork(self) -> None:
        self._client = self._client.renewed()
        super()._after_fork()

    def _signal(self) -> None:
        with self._changed:
            if not self._idle and len(self._workers) < self._max_in_flight:
                self._start_worker()
            self._changed.notify_all()

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="meterprint", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter ends, or has no threads: flush and close send
            worker.start()
            if not self._workers:
                end_with_multiprocessing()
            self._workers.append(worker)

    def _work(self) -> None:
        while (batch := self._wait_for_batch()) is not None:
            try:
                self._drive(batch, self._client)
            except Exception:
                logger.exception("%d events not delivered, trying again", batch.rest)
                try:
                    self._pause(_AFTER_BUG)
                except _GaveUpError:
                    self._give_up(batch)
                    continue
                with self._changed:
                    self._ready.append(batch)

    def _wait_for_batch(self) -> Batch | None:
        with self._changed:
            self._idle += 1
            while not (batch := self._next_ready()) and not self._closed:
                self._changed.wait(max(self._due - time.monotonic(), 0.0))
            self._idle -= 1
            if self._ready:
                self._signal()
            return batch

    def _drain_for(self, seconds: float) -> None:
        before = self._deadline
        self._deadline = time.monotonic() + seconds
        self._drain(self._client)
        self._deadline = before
        self._given_up.clear()


class AsyncRecorder(_Recorder[AsyncMeteringClient]):
    """Delivers events in the background by asyncio; everything else as `Recorder`.

    Use it as `async with recorder:` around the life of the application. `record` may be called before, and from any
    thread. It never blocks, the event loop must not wait: `full` is "spill" or "drop".

    Raises:
        ConfigurationError: As `Recorder`; or `full` is "block".
    """

    _full_in_memory: FullPolicy = "drop"

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A recorder to METERING_API_URL with METERING_API_KEY; the options are those of the class.

        Raises:
            ConfigurationError: One of the two is not set, or an option cannot be used.
        """
        return cls(AsyncMeteringClient.from_env(timeout=_REQUEST_TIMEOUT), **options)

    async def flush(self, timeout: float = 10.0) -> bool:  # noqa: ASYNC109  # what is not done by then goes on
        """Send what is there now, and wait for it, as `Recorder.flush`."""
        self._start()
        waited = self._hurry_up(timeout)
        deadline = time.monotonic() + timeout
        self._wake()
        while not self._is_over(waited) and (left := deadline - time.monotonic()) > 0:
            await _within(left, self._woken)
        return waited.isdisjoint(self._unfinished)

    async def aclose(self) -> None:
        """Take no more events, and deliver those that are left, within `shutdown_timeout`.

        A cancellation ends it early; what is not delivered by then stays in the spool.
        """
        import asyncio

        try:
            await self.flush(self._begin_end())
        finally:
            tasks = [task for task in (self._sender, *self._tasks) if task]
            for task in tasks:
                task.cancel()
            self._retire()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _begin(self) -> None:
        if self._full == "block":
            raise ConfigurationError("full='block' would stop the event loop: choose 'spill' or 'drop'")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        super()._begin()

    def _after_fork(self) -> None:
        self._client = self._client.renewed()
        super()._after_fork()

    def _start(self) -> None:
        import asyncio

        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._woken = asyncio.Event()
            self._sender = asyncio.create_task(self._send_batches())

    def _signal(self) -> None:
        if loop := self._loop:
            with contextlib.suppress(RuntimeError):  # the loop is closed: what is left goes out at the end
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """Wake everyone who waits, each to look whether it is for him."""
        import asyncio

        self._woken.set()
        self._woken = asyncio.Event()

    async def _send_batches(self) -> None:
        import asyncio

        while True:
            woken = self._woken
            with self._changed:
                while len(self._tasks) < self._max_in_flight and (batch := self._next_ready()):
                    task = asyncio.create_task(self._send(batch))
                    self._tasks.add(task)
                    task.add_done_callback(self._sent)
            # With all requests under way, the end of one is what to wait for.
            is_full = len(self._tasks) >= self._max_in_flight
            await _within(None if is_full else max(self._due - time.monotonic(), 0.0), woken)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()

    async def _send(self, batch: Batch) -> None:
        """Take a batch through its steps, as `_drive` does in threads."""
        steps = self._delivery.steps(batch)
        answer: Answer | None = None
        try:
            while True:
                step = steps.send(answer)
                answer = None
                if isinstance(step, Pause):
                    await self._rest(step)
                else:
                    answer = await self._client.ingest_once(step)
        except StopIteration:
            self._settle(batch)
        except _GaveUpError:
            self._give_up(batch)
        except Exception:
            logger.exception("%d events not delivered, trying again", batch.rest)
            with contextlib.suppress(_GaveUpError):
                await self._rest(_AFTER_BUG)
            self._ready.append(batch)

    async def _rest(self, pause: Pause) -> None:
        """Wait, as `_pause` does in threads."""
        until = time.monotonic() + pause.seconds
        hurry = self._hurry
        while (left := self._left(until, pause)) > 0 and (pause.asked or self._hurry == hurry):
            until = time.monotonic() + left
            await _within(left, self._woken)

    def _end(self) -> None:
        """The process ends, and no loop runs any more: send what is left without one."""
        if self._retired:
            return
        self._begin_end()
        self._hurry_up(self._shutdown_timeout)
        with self._client.blocking() as client:
            self._drain(client)
        self._retire()


async def _within(seconds: float | None, event: asyncio.Event) -> None:
    import asyncio

    # asyncio.wait_for swallows a cancellation that comes together with the event, before Python 3.12.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
