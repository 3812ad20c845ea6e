"""What to do with a batch and with each answer to it. No I/O here: threads and asyncio run the same steps."""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from .client import Answer
from .errors import MeterprintError, Problem
from .event import (
    MAX_BODY_BYTES,
    MAX_EVENTS,
    MAX_METADATA_PAIRS,
    OLDEST,
    age_problem,
    format_timestamp,
    parse_timestamp,
)
from .spool import DeadLetter, write_dead_letters
from .wire import body_of, line_from_wire, without_repeats

LatePolicy = Literal["dead_letter", "restamp"]

# What a status means (RFC 9110 section 15; 429 is RFC 6585, 425 is RFC 8470). What is in none of these, 401 and 403
# above all, is the fault of the setting and not of the events: they are kept until it is mended.
_REFUSED = frozenset({400, 422})
_RETRIED = frozenset({0, 408, 425, 429}) | frozenset(range(500, 600))
_TIME = "INVALID_TIMESTAMP"
_CONFLICT, _TOO_LARGE = 409, 413

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0  # seconds; the bound doubles with each try
_LONGEST_ASKED = 600.0  # seconds: a Retry-After beyond this is a mistake
_KEPT_DELAY = 30.0  # seconds between tries while a setting is wrong
_TOLERATED_SKEW = 60.0  # seconds that a clock may be wrong without a word
_DATE_RESOLUTION = 2.0  # seconds: the Date header has whole ones, and the answer took its time
_ON_ITS_WAY = timedelta(minutes=50)
BODY_ROOM = MAX_BODY_BYTES - 64  # what stands around the events
_POINTER = r"/events/(\d{1,4})(/|$)"

logger = logging.getLogger("meterprint")


class Pause(NamedTuple):
    """A step: wait.

    Attributes:
        seconds: How long.
        asked: Whether the metering API asked for it: then nothing shortens it.
    """

    seconds: float
    asked: bool = False


# A step is a body to send, which takes the answer, or a pause.
Steps: TypeAlias = Generator["bytes | Pause", "Answer | None", None]


class Batch:
    """Events on their way. What was done with stays done when its steps are begun anew.

    Attributes:
        size: How many events it began with.
        oldest: When its oldest event happened, in nanoseconds since 1970; 0 if it must be looked up.
        load: Gives the lines; called once, when it is its turn.
        path: The file that holds them, if any.
        in_memory: Whether they are in memory before the load.
        todo: Parts that are still to send, the next one last; None before the load.
    """

    def __init__(
        self,
        size: int,
        oldest: int,
        load: Callable[[], list[bytes]],
        path: Path | None = None,
        *,
        in_memory: bool = True,
    ) -> None:
        self.size, self.oldest, self.load, self.path, self.in_memory = size, oldest, load, path, in_memory
        self.todo: list[list[bytes]] | None = None

    @property
    def rest(self) -> int:
        """How many events are still to send."""
        return self.size if self.todo is None else sum(map(len, self.todo))

    def parts(self) -> list[list[bytes]]:
        """The parts that are still to send."""
        if self.todo is None:
            self.todo = _by_size(self.load())[::-1]
        return self.todo


class Tally:
    """What became of the events; one lock for all numbers."""

    def __init__(self) -> None:
        self.delivered = self.duplicates = self.retried = self.dead = self.dropped = 0
        self.lock = threading.RLock()

    def add(self, **numbers: int) -> None:
        """Add to some of the numbers."""
        with self.lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)


def full_jitter(attempt: int) -> float:
    """Seconds to wait after a failed try: random, below a bound that doubles from 0.5 s to 30 s.

    Spreading tries over the whole range clears a crowd soonest (AWS Architecture Blog, "Exponential Backoff And
    Jitter", 2015).

    Args:
        attempt: 1 after the first try.
    """
    bound = min(_FIRST_DELAY * 2 ** min(attempt - 1, 10), _LONGEST_DELAY)
    return random.uniform(0, bound)  # noqa: S311  # jitter, not a secret


class Delivery:
    """Turns batches into steps, and answers into what became of the events.

    Args:
        late: What to do with an event that the metering API is too old for.
        clock: Nanoseconds since 1970.
        backoff: Seconds to wait after the n-th try.
        spool_path: Where dead letters are written.
        on_dead: Told of each dead letter.
        on_problem: Told of each error that holds delivery up.
    """

    def __init__(
        self,
        *,
        late: LatePolicy,
        clock: Callable[[], int],
        backoff: Callable[[int], float],
        spool_path: Path | None,
        on_dead: Callable[[DeadLetter], object] | None,
        on_problem: Callable[[MeterprintError], object] | None,
    ) -> None:
        self.tally = Tally()
        self.letters: deque[DeadLetter] = deque(maxlen=1000)
        self._late = late
        self._clock = clock
        self._backoff = backoff
        self._spool_path = spool_path
        self._on_dead = on_dead
        self._on_problem = on_problem
        self._known_skew = 0.0
        self._not_before = 0.0  # monotonic: the metering API asked for a pause

    def steps(self, batch: Batch) -> Steps:
        """Send a batch until each event is delivered, or dead with a reason."""
        attempt = 0
        parts = batch.parts()
        while parts:
            lines = parts[-1] = self._in_time(batch, self._unique(parts[-1]))
            if lines and (wait := self._not_before - time.monotonic()) > 0:
                yield Pause(wait, asked=True)
            answer = (yield body_of(lines)) if lines else None
            self._see_clock(answer)
            if answer is None or answer.result:
                self._delivered(answer, len(lines))
                parts.pop()
                attempt = 0
            elif self._refused(answer):
                parts[-1:] = self._isolated(lines, answer)
            else:
                attempt += 1
                yield self._held(answer, attempt, len(lines))

    def _unique(self, lines: list[bytes]) -> list[bytes]:
        unique = without_repeats(lines)
        if len(unique) < len(lines):
            self.tally.add(duplicates=len(lines) - len(unique))
        return unique

    def _delivered(self, answer: Answer | None, count: int) -> None:
        if answer and answer.result:
            known = answer.result.duplicate_count
            self.tally.add(delivered=count - known, duplicates=known)

    def _refused(self, answer: Answer) -> bool:
        """Whether the events are at fault: of a 400 or 422, only a metering API's own word counts, not a proxy's."""
        if answer.status in (_CONFLICT, _TOO_LARGE):
            return True
        return answer.status in _REFUSED and answer.code != "UNKNOWN"

    def _held(self, answer: Answer, attempt: int, count: int) -> Pause:
        """Keep the events, say why, and wait."""
        self.tally.add(retried=count)
        error = answer.error or MeterprintError(f"status {answer.status}")
        _tell(self._on_problem, error)
        if answer.status not in _RETRIED:
            logger.error("%d events kept, not delivered: %s. Mend this: they are sent when it works", count, error)
            return Pause(max(_KEPT_DELAY * (0.5 + random.random() / 2), answer.retry_after or 0.0))  # noqa: S311
        logger.warning("%d events not delivered at try %d, kept: %s", count, attempt, error)
        if answer.retry_after is None:
            return Pause(self._backoff(attempt))
        asked = min(answer.retry_after, _LONGEST_ASKED)
        self._not_before = max(self._not_before, time.monotonic() + asked)
        return Pause(asked, asked=True)

    def _isolated(self, lines: list[bytes], answer: Answer) -> list[list[bytes]]:
        """What is still to send after a refusal, the next part last."""
        if answer.status == _TOO_LARGE and len(lines) > 1:
            return _halves(lines)
        problems = _problems(answer, len(lines))
        of_time = answer.code == _TIME or any(problem.pointer == "/timestamp" for problem in problems.values())
        if of_time and (timed := self._timed_by_server(lines, answer)) != lines:
            return [timed]
        if not problems and len(lines) > 1:
            return _halves(lines)
        rest: list[bytes] = []
        dead: list[DeadLetter] = []
        known = 0
        for index, line in enumerate(lines):
            if problems and index not in problems:
                rest.append(line)
            elif answer.status == _CONFLICT or answer.code == "DUPLICATE_EVENT_ID":
                known += 1
            elif of_time and (restamped := self._second_chance(line)):
                rest.append(restamped)
            else:
                dead.append(_dead_letter(line, answer, problems.get(index)))
        self.bury(dead)
        self.tally.add(duplicates=known)
        return [rest]

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters, and report each.

        Raises:
            OSError: The spool could not take them; they are not dead yet.
        """
        if not letters:
            return
        if self._spool_path:
            write_dead_letters(self._spool_path, letters)
        self.tally.add(dead=len(letters))
        self.letters.extend(letters)
        for letter in letters:
            logger.error("event %s is a dead letter: %s %s", letter.event_id, letter.code, letter.reason)
            _tell(self._on_dead, letter)

    # Times: the API takes events of the last hour, and up to 5 minutes ahead.

    def _in_time(self, batch: Batch, lines: list[bytes]) -> list[bytes]:
        """Apply the policy for late events before they are sent."""
        now = self._clock()
        if now - batch.oldest < OLDEST.total_seconds() * 1e9:
            return lines
        kept = self._timed(lines, _moment(now), skew=0.0, future_too=False)
        batch.oldest = min((_nanoseconds(line) for line in kept), default=now)
        return kept

    def _timed_by_server(self, lines: list[bytes], answer: Answer) -> list[bytes]:
        """Apply it by the server's clock, after it refused a time; a wrong clock of ours is corrected."""
        now = self._clock() / 1e9
        if answer.server_time is None:
            return lines if self._late == "dead_letter" else self._timed(lines, _moment(self._clock()), skew=0.0)
        skew = answer.server_time - now
        skew = 0.0 if abs(skew) <= _DATE_RESOLUTION else skew
        return self._timed(lines, datetime.fromtimestamp(answer.server_time, UTC), skew=skew)

    def _see_clock(self, answer: Answer | None) -> None:
        """Report a clock of ours that is wrong, once for each error that it has."""
        if answer is None or answer.server_time is None:
            return
        skew = answer.server_time - self._clock() / 1e9
        if abs(skew) > _TOLERATED_SKEW and abs(skew - self._known_skew) > _TOLERATED_SKEW:
            self._known_skew = skew
            side = "fast" if skew < 0 else "slow"
            text = (
                f"the clock of this machine is {abs(skew):.0f} s {side} of the metering API's Date: set it by NTP. "
                "Times that are refused are corrected by as much"
            )
            logger.error(text)
            _tell(self._on_problem, MeterprintError(text))

    def _second_chance(self, line: bytes) -> bytes | None:
        """An event that became too old on its way, if the policy is to stamp it anew."""
        if self._late != "restamp":
            return None
        event, now = _decoded(line), _moment(self._clock())
        moment = _time_of(event)
        return _restamped(event, now) if moment and now - moment > _ON_ITS_WAY else None

    def _timed(self, lines: list[bytes], now: datetime, *, skew: float, future_too: bool = True) -> list[bytes]:
        kept: list[bytes] = []
        dead: list[DeadLetter] = []
        for line in lines:
            event = _decoded(line)
            moment = _time_of(event)
            if moment is None or (problem := age_problem(moment, now)) is None:
                kept.append(line)
            elif skew and not age_problem(corrected := _shifted(moment, skew), now):
                kept.append(_restamped(event, corrected))
            elif moment < now and self._late == "restamp":
                kept.append(_restamped(event, now))
            elif moment < now or future_too:
                dead.append(DeadLetter(event, problem.code, problem.reason))
            else:
                kept.append(line)
        self.bury(dead)
        return kept


def _halves(lines: list[bytes]) -> list[list[bytes]]:
    middle = len(lines) // 2
    return [lines[middle:], lines[:middle]]


def _by_size(lines: list[bytes]) -> list[list[bytes]]:
    """Parts that each fit into a request."""
    if len(lines) <= MAX_EVENTS and sum(map(len, lines)) + len(lines) <= BODY_ROOM:
        return [lines]
    parts: list[list[bytes]] = [[]]
    room = BODY_ROOM
    for line in lines:
        if parts[-1] and (len(line) + 1 > room or len(parts[-1]) == MAX_EVENTS):
            parts.append([])
            room = BODY_ROOM
        parts[-1].append(line)
        room -= len(line) + 1
    return parts


def _tell(callback: Callable[[Any], object] | None, what: object) -> None:
    """Call a callback of the application's; its errors are its own."""
    try:
        if callback:
            callback(what)
    except Exception:
        logger.exception("a callback failed")


def _problems(answer: Answer, count: int) -> dict[int, Problem]:
    """The first problem of each event that a refusal points to, by index; the pointers begin within the event."""
    problems: Sequence[Problem] = getattr(answer.error, "problems", ())
    found: dict[int, Problem] = {}
    for problem in problems:
        match = re.match(_POINTER, problem.pointer)
        if match and int(match[1]) < count:
            within = Problem(problem.pointer[match.end(1) :], problem.reason)
            found.setdefault(int(match[1]), within)
    return found


def _dead_letter(line: bytes, answer: Answer, problem: Problem | None) -> DeadLetter:
    code = str(answer.status) if answer.code == "UNKNOWN" else answer.code
    if problem and problem.pointer == "/timestamp":
        code = _TIME
    return DeadLetter(_decoded(line), code, str(problem or answer.error))


def _decoded(line: bytes) -> dict[str, Any]:
    """An event from its line; a line that the disk spoilt is kept as text."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"text": line.decode(errors="replace")}


def _time_of(event: dict[str, Any]) -> datetime | None:
    try:
        return parse_timestamp(event.get("timestamp"))
    except ValueError:
        return None


def _nanoseconds(line: bytes) -> int:
    moment = _time_of(_decoded(line))
    return int(moment.timestamp() * 1e9) if moment else 0


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _shifted(moment: datetime, seconds: float) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() + seconds, UTC)


def _restamped(event: dict[str, Any], moment: datetime) -> bytes:
    metadata: dict[str, Any] = dict(event.get("metadata") or {})
    if len(metadata) < MAX_METADATA_PAIRS:
        metadata.setdefault("original_timestamp", event["timestamp"])
    return line_from_wire({**event, "timestamp": format_timestamp(moment), "metadata": metadata})
