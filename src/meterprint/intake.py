"""The part of a recorder that takes events: checks them, keeps them, and cuts them into batches. It sends nothing."""

from __future__ import annotations

import itertools
import logging
import math
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from . import exits
from .client import AsyncMeteringClient, MeteringClient
from .delivery import BODY_ROOM, Batch, Delivery, LatePolicy, Tally, full_jitter
from .errors import ConfigurationError, MeterprintError, ValidationError
from .event import MAX_EVENTS, Event, MetadataValue
from .spool import JOURNAL, DeadLetter, Segment, Spool, read_lines
from .telemetry import observe
from .wire import Stamped, is_identifier, is_plain, line_of, stamped

if TYPE_CHECKING:
    from .rollup import Rollup, Window  # loaded where it is used: most recorders do without

ClientT = TypeVar("ClientT", bound=MeteringClient | AsyncMeteringClient)
FullPolicy = Literal["block", "spill", "drop"]

_SIGNAL_EVERY = (
    MAX_EVENTS // 2
)  # records between two signals to the sender: one for each would cost more than the record
_CLOSED = "this recorder is closed: record before its end, or make another"
_MOST_GROUPS = 10_000  # of one window of a rollup, which is then closed early

logger = logging.getLogger("meterprint")


class RecorderStats(NamedTuple):
    """What became of the events of a recorder.

    Without a rollup, `recorded` is the sum of `delivered`, `duplicates`, `dead`, `dropped` and `buffered`.

    Attributes:
        recorded: Events taken, those that a dead process left in the spool included.
        delivered: Events that the metering API stored.
        duplicates: Events that it had already: an answer was lost, or an id was recorded twice. They are billed once.
        retried: Events in tries that failed, each time anew.
        dead: Dead letters.
        dropped: Events that the full buffer did not take.
        buffered: Events that wait, or are on their way.
        oldest_age: Seconds since the oldest of these happened; 0 if there is none.
    """

    recorded: int
    delivered: int
    duplicates: int
    retried: int
    dead: int
    dropped: int
    buffered: int
    oldest_age: float


class _Open:
    """The events of the spool's current segment; in memory alone, if the disk fails."""

    def __init__(self, segment: Segment | None) -> None:
        self.segment = segment
        self.lines: list[bytes] = []
        self.size = 0
        self.oldest = sys.maxsize

    def add(self, line: bytes, nanoseconds: int) -> None:
        self.lines.append(line)
        self.size += len(line) + 1
        self.oldest = min(self.oldest, nanoseconds)

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= MAX_EVENTS or self.size >= BODY_ROOM


class Intake(ABC, Generic[ClientT]):
    """What `Recorder` and `AsyncRecorder` share; their arguments are described there."""

    _full_in_memory: FullPolicy = "block"

    def __init__(
        self,
        client: ClientT,
        *,
        spool: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        interval: float = 1.0,
        max_in_flight: int = 4,
        max_buffered: int = 100_000,
        full: FullPolicy | None = None,
        block_timeout: float = 0.1,
        late: LatePolicy = "dead_letter",
        rollup: Rollup | None = None,
        shutdown_timeout: float = 10.0,
        on_dead: Callable[[DeadLetter], object] | None = None,
        on_problem: Callable[[MeterprintError], object] | None = None,
        clock: Callable[[], int] = time.time_ns,
        backoff: Callable[[int], float] = full_jitter,
    ) -> None:
        _check_number("interval", interval, "seconds")
        _check_number("max_in_flight", max_in_flight, "requests")
        _check_number("max_buffered", max_buffered, "events")
        _check_number("block_timeout", block_timeout, "seconds", zero=True)
        _check_number("shutdown_timeout", shutdown_timeout, "seconds", zero=True)
        _check_choice("late", late, ("dead_letter", "restamp"))
        self._full = full or ("spill" if spool else self._full_in_memory)
        _check_choice("full", self._full, ("block", "spill", "drop"))
        if self._full == "spill" and not spool:
            raise ConfigurationError("full='spill' needs a spool to spill to: give spool=, or another policy")
        self._client = client
        self._spool_path = Path(spool) if spool else None
        self._strict = bool(sys.flags.dev_mode) if strict is None else strict
        self._interval = interval
        self._max_in_flight = max_in_flight
        self._max_buffered = max_buffered
        self._block_timeout = block_timeout
        self._rollup = rollup
        self._shutdown_timeout = shutdown_timeout
        self._clock = clock
        self._delivery = Delivery(
            late=late,
            clock=clock,
            backoff=backoff,
            spool_path=self._spool_path,
            on_dead=on_dead,
            on_problem=on_problem,
        )
        self._closed = self._retired = False
        self._endings: list[Callable[[], object]] = []
        self._begin()
        exits.watch(self)
        observe(self)

    def _begin(self) -> None:
        """Begin with nothing but what dead processes left: at the start, and in a forked child."""
        self._changed = threading.Condition(threading.RLock())
        self._delivery.tally = Tally()
        self._queue: deque[Stamped] = deque()
        # Random beginnings keep ids apart, multiples make the first record a signal.
        self._number = itertools.count(int.from_bytes(os.urandom(9)) // _SIGNAL_EVERY * _SIGNAL_EVERY).__next__
        self._ready: deque[Batch] = deque()
        self._unfinished: set[Batch] = set()
        self._recorded = self._held = 0
        self._stalled = False
        self._deadline: float | None = None
        self._hurry = 0
        self._flush_until = 0.0
        self._given_up: set[Batch] = set()
        self._due = time.monotonic() + self._interval
        self._open: _Open | None = None
        self._windows: dict[int, tuple[Window, Segment | None]] = {}
        self._spool = Spool(self._spool_path) if self._spool_path else None
        self._source = self._spool.owner if self._spool else Event.new_id()
        self._parts = itertools.count()
        self._is_fast = self._spool is None and self._rollup is None and not self._closed
        for path in self._spool.adopt() if self._spool else ():
            self._adopt(path)

    def _after_fork(self) -> None:
        if self._spool:
            self._spool.abandon()
            files = [journal for _, journal in self._windows.values()]
            files += [self._open.segment] if self._open else []
            for file in files:
                if file:
                    file.close()
        self._delivery.letters.clear()
        try:
            self._begin()
        except MeterprintError:
            logger.exception("the spool cannot be used in this process: its events are kept in memory")
            self._spool_path = None
            self._begin()

    # Taking events.

    def record(
        self,
        event: str | Event,
        /,
        *,
        customer_id: str = "",
        metadata: Mapping[str, MetadataValue] | None = None,
        event_id: str | None = None,
    ) -> None:
        """Take an event: stamped with time and id now, delivered in the background.

        It never raises for a problem of delivery. It returns at once; only where the buffer is full and `full` is
        "block" it waits, for at most `block_timeout`. Any thread may call it.

        Args:
            event: An `Event`, or the name of one that happened now.
            customer_id: Who is billed. This and what follows go with a name only.
            metadata: At most 50 pairs; copied.
            event_id: The idempotency key, for something that has a natural one (`Event.id_for`); else a new one.

        Raises:
            ValidationError: The event breaks a rule, and the recorder is strict. Otherwise it is a dead letter.
            MeterprintError: The recorder is closed.
        """
        now = self._clock()
        number = self._number()
        item: Stamped
        if (
            type(event) is str
            and type(metadata) is dict
            and (event_id is None or is_identifier(event_id))
            and is_plain(event, customer_id, metadata)
        ):
            item = (now, number, event, customer_id, metadata.copy(), event_id)
        else:
            try:
                item = _checked(event, customer_id, {} if metadata is None else metadata, event_id, (now, number))
            except ValidationError as error:
                if self._strict:
                    raise
                # An id of its own, so that the command line can name it.
                wire = {"event_id": event_id or Event.new_id(), "customer_id": customer_id, "event_name": event}
                self._bury_quietly(DeadLetter({**wire, "metadata": metadata}, error.code, str(error)))
                return
        if not self._is_fast:
            self._take_carefully(item)
        elif len(self._queue) + self._held < self._max_buffered:
            self._queue.append(item)
        else:
            self._take_when_full(item)
        if not number % _SIGNAL_EVERY:
            self._signal()

    def on_end(self, callback: Callable[[], object], /) -> None:
        """Have something called before this recorder ends, while it still takes events: the last chance to record.

        It is called once, by whoever ends the recorder: `close`, the exit of the process, SIGTERM. What it raises is
        logged.

        Args:
            callback: Records what is not over yet, such as a stream that was broken off.
        """
        self._endings.append(callback)

    def _bury_quietly(self, letter: DeadLetter) -> None:
        with self._changed:
            self._recorded += 1
        try:
            self._delivery.bury([letter])
        except OSError:
            logger.exception("a dead letter could not be written: %s", letter.to_json())
            self._delivery.tally.add(dead=1)

    def _take_carefully(self, item: Stamped) -> None:
        """Take an event where there is a spool or a rollup, or nothing is taken any more."""
        line = line_of(item) if self._spool_path else b""
        # Without the lock at first: when the interpreter ends, a thread may have died with it.
        if self._closed:
            raise MeterprintError(_CLOSED)
        with self._changed:
            if self._closed:
                raise MeterprintError(_CLOSED)
            if self._rollup and self._rollup.takes(item[4]):
                self._recorded += 1
                self._roll_up(item, line)
            elif self._spool:
                self._recorded += 1
                self._store(line, item[0])
            elif self._has_room():
                self._queue.append(item)
            else:
                self._drop()

    def _take_when_full(self, item: Stamped) -> None:
        with self._changed:
            if self._has_room():
                self._queue.append(item)
            else:
                self._drop()

    def _has_room(self) -> bool:
        """Whether memory takes another event, after a bounded wait if that is the policy."""
        if self._full == "block" and not self._is_below_limit() and not self._stalled:
            self._cut(everything=True)
            self._signal()
            self._stalled = not self._changed.wait_for(self._is_below_limit, self._block_timeout)
        return self._is_below_limit()

    def _is_below_limit(self) -> bool:
        waiting = len(self._open.lines) if self._open else 0
        return len(self._queue) + self._held + waiting < self._max_buffered

    def _drop(self) -> None:
        self._recorded += 0 if self._spool else 1
        self._delivery.tally.add(dropped=1)
        if self._delivery.tally.dropped % MAX_EVENTS == 1:
            logger.error("the buffer is full: %d events dropped so far", self._delivery.tally.dropped)

    # The spool: an event is on disk before record returns.

    def _store(self, line: bytes, nanoseconds: int) -> None:
        if self._full != "spill" and not self._has_room():
            self._drop()
            return
        current = self._open or self._new_segment()
        if current.segment:
            try:
                current.segment.append(line)
            except OSError as error:
                self._disk_failed(error)
                self._seal()
                current = self._open = _Open(None)
        if current.segment is None and not self._has_room():
            self._drop()
            return
        current.add(line, nanoseconds)
        if current.is_full:
            self._seal()
            self._signal()

    def _new_segment(self) -> _Open:
        assert self._spool
        try:
            self._open = _Open(self._spool.segment())
        except OSError as error:
            self._disk_failed(error)
            self._open = _Open(None)
        return self._open

    def _disk_failed(self, error: OSError) -> None:
        logger.error("the spool %s cannot be written, events are kept in memory: %s", self._spool_path, error)

    def _seal(self) -> None:
        """Turn the current segment into a batch; beyond the limit of memory it stays on disk alone."""
        if not (current := self._open):
            return
        lines, path = current.lines, None
        if current.segment:
            current.segment.close()
            path = current.segment.path
        if path and not lines and self._spool:
            self._spool.remove(path)  # the disk took none
        elif path and self._held >= self._max_buffered:
            self._add(Batch(len(lines), current.oldest, partial(read_lines, path), path, in_memory=False))
        elif lines:
            self._add(Batch(len(lines), current.oldest, partial(list, lines), path))
        self._open = None  # last: a signal before this makes a repeat, never a rest that nobody sends

    def _adopt(self, path: Path) -> None:
        """Deliver what a process left that lives no more."""
        try:
            lines = _lines_in(path)
        except (OSError, ValueError, LookupError):
            logger.exception("%s cannot be read: it is left as it is", path)
            return
        if lines:
            self._recorded += len(lines)
            self._add(Batch(len(lines), 0, partial(_lines_in, path), path, in_memory=False))
        elif self._spool:
            self._spool.remove(path)

    # The rollup.

    def _roll_up(self, item: Stamped, line: bytes) -> None:
        assert self._rollup
        start = self._rollup.window(item[0])
        window, journal = self._windows.get(start) or self._new_window(start)
        if journal:
            try:
                journal.append(line)
            except OSError as error:
                self._disk_failed(error)
        window.add(item)
        if len(window) >= _MOST_GROUPS:
            self._emit([start])

    def _new_window(self, start: int) -> tuple[Window, Segment | None]:
        from .rollup import Window

        assert self._rollup
        window = Window(self._rollup, start, f"{self._source}-{next(self._parts)}")
        journal = self._new_journal(window) if self._spool else None
        self._windows[start] = window, journal
        return window, journal

    def _new_journal(self, window: Window) -> Segment | None:
        """Where the window's events are on disk; None if the disk fails: without its header a journal says nothing."""
        assert self._spool
        journal = None
        try:
            journal = self._spool.segment(JOURNAL)
            journal.append(window.header())
        except OSError as error:
            self._disk_failed(error)
            if journal:
                journal.close()
                self._spool.remove(journal.path)
            return None
        return journal

    def _emit(self, starts: Iterable[int]) -> None:
        """Turn windows into events. The journal goes last: a death in between repeats ids, which are billed once."""
        for start in list(starts):
            window, journal = self._windows.pop(start)
            lines = window.lines()
            if self._spool:
                for line in lines:
                    self._store(line, start)
            else:
                self._add(Batch(len(lines), start, partial(list, lines)))
            if journal and self._spool:
                journal.close()
                self._spool.remove(journal.path)

    # Batches.

    def _cut(self, *, everything: bool = False) -> None:
        """Make batches of what waits: full ones, or of everything."""
        while (count := min(len(self._queue), MAX_EVENTS)) and (everything or count == MAX_EVENTS):
            # A signal may come between any two of these lines: at each of them, every event is in the queue or in a
            # batch. The move itself is one call into C, which no signal and no thread comes between.
            items: list[Stamped] = []
            batch = Batch(count, 0, partial(self._lines, items))
            self._add(batch)
            items.extend(itertools.starmap(self._queue.popleft, itertools.repeat((), count)))
            batch.oldest = min(item[0] for item in items)
            self._recorded += count
        if everything:
            self._seal()

    def _lines(self, items: list[Stamped]) -> list[bytes]:
        try:
            return [line_of(item) for item in items]
        except Exception:
            logger.exception("an event cannot be written as JSON: finding it")
        lines: list[bytes] = []
        for item in items:
            try:
                lines.append(line_of(item))
            except Exception as error:  # noqa: BLE001  # whatever it is, the others go out
                self._delivery.bury([DeadLetter({"event": repr(item)}, "INVALID_REQUEST_BODY", str(error))])
        return lines

    def _add(self, batch: Batch) -> None:
        self._unfinished.add(batch)
        self._held += batch.size if batch.in_memory else 0
        self._ready.append(batch)

    def _next_ready(self) -> Batch | None:
        """The next batch to send, if one is full or old enough. Call it with the lock."""
        now = time.monotonic()
        if now >= self._due or self._closed:
            self._due = now + self._interval
            if self._rollup:
                moment = self._clock() - self._rollup.length
                self._emit([start for start in self._windows if start <= moment or self._closed])
            self._cut(everything=True)
        elif len(self._queue) >= MAX_EVENTS:
            self._cut()
        return self._ready.popleft() if self._ready else None

    def _hurry_up(self, seconds: float) -> set[Batch]:
        """Make everything ready to send at once, since someone waits; gives all that is unfinished."""
        with self._changed:
            self._flush_until = max(self._flush_until, time.monotonic() + seconds)
            self._emit(list(self._windows))
            self._cut(everything=True)
            self._hurry += 1
            return set(self._unfinished)

    def _settle(self, batch: Batch) -> None:
        """Each event of the batch is delivered or dead."""
        with self._changed:
            if batch not in self._unfinished:
                return
            if batch.path and self._spool:
                self._spool.remove(batch.path)
            self._unfinished.discard(batch)
            self._held -= batch.size if batch.in_memory else 0
            self._stalled = False
            self._signal()

    def _give_up(self, batch: Batch) -> None:
        """The time for the end is up: the rest of the batch stays where it is."""
        with self._changed:
            self._given_up.add(batch)
            self._signal()

    def _is_over(self, batches: set[Batch]) -> bool:
        """Whether nothing more will be done for these."""
        return batches.isdisjoint(self._unfinished - self._given_up)

    def _begin_end(self) -> float:
        """Take no more events; gives the seconds that are left for the rest."""
        while self._endings:
            try:
                self._endings.pop()()
            except Exception:
                logger.exception("what was to be recorded at the end was not")
        with self._changed:
            self._closed, self._is_fast = True, False
            if self._deadline is None:
                self._deadline = time.monotonic() + self._shutdown_timeout
            return max(self._deadline - time.monotonic(), 0.0)

    def _retire(self) -> None:
        """Leave the rest to the spool, and say what is left."""
        with self._changed:
            if self._retired:
                return
            self._retired = True
            exits.forget(self)
            rest = self.stats.buffered
            if self._spool:
                self._spool.close()
        if rest and self._spool:
            logger.warning("%d events stay in the spool %s: the next start sends them", rest, self._spool_path)
        elif rest:
            logger.error(
                "%d events are lost: the metering API did not take them in time. A spool would keep them", rest
            )

    # Seen from outside.

    @property
    def stats(self) -> RecorderStats:
        """What became of the events so far."""
        tally = self._delivery.tally
        with self._changed, tally.lock:
            waiting = len(self._queue)
            ages = [self._queue[0][0]] if waiting else []  # no iteration: other threads append meanwhile
            ages += [batch.oldest for batch in self._unfinished if batch.oldest] + list(self._windows)
            ages += [self._open.oldest] if self._open and self._open.lines else []
            buffered = (
                waiting + sum(batch.rest for batch in self._unfinished) + (len(self._open.lines) if self._open else 0)
            )
            return RecorderStats(
                recorded=self._recorded + waiting,
                delivered=tally.delivered,
                duplicates=tally.duplicates,
                retried=tally.retried,
                dead=tally.dead,
                dropped=tally.dropped,
                buffered=buffered + sum(len(window) for window, _ in self._windows.values()),
                oldest_age=max((self._clock() - min(ages)) / 1e9, 0.0) if ages else 0.0,
            )

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The latest dead letters of this process, at most 1,000. With a spool, all are in its folder."""
        return list(self._delivery.letters)

    @abstractmethod
    def _signal(self) -> None:
        """Wake whoever sends, or waits."""

    @abstractmethod
    def _end(self) -> None:
        """The process ends: deliver what is left, within bounds."""


def _checked(
    event: str | Event,
    customer_id: str,
    metadata: Mapping[str, MetadataValue],
    event_id: str | None,
    stamp: tuple[int, int],
) -> Stamped:
    now, number = stamp
    if isinstance(event, Event):
        if customer_id or metadata or event_id:
            raise TypeError("record(event) takes no customer_id, metadata or event_id: the event has its own")
        return stamped(event, number)
    moment = datetime.fromtimestamp(now / 1e9, UTC)
    return stamped(
        Event(Event.new_id() if event_id is None else event_id, customer_id, event, moment, metadata), number
    )


def _lines_in(path: Path) -> list[bytes]:
    """The events of a file that a process left, those of a journal summed up."""
    if path.suffix != JOURNAL:
        return read_lines(path)
    from .rollup import Window

    return Window.from_journal(read_lines(path)).lines()


def _check_number(name: str, value: object, unit: str, *, zero: bool = False) -> None:
    fits = isinstance(value, (int, float)) and math.isfinite(value) and (value > 0 or (zero and value == 0))
    if not fits:
        least = "0 or more" if zero else "more than 0"
        raise ConfigurationError(f"{name}={value!r}: give {least} {unit}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")
