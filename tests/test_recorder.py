"""The recorders by threads and by asyncio: what arrives, what is kept, and what is said of it."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from meterprint import (
    AsyncMeteringClient,
    AsyncRecorder,
    ConfigurationError,
    DeadLetter,
    Event,
    MeteringClient,
    MeterprintError,
    Recorder,
    ValidationError,
    exits,
)

Script = Callable[[httpx.Request, list[str]], httpx.Response | None]
KINDS = ("threads", "asyncio")


def event(number: int, **values: Any) -> Event:
    return Event(event_id=f"e{number}", customer_id="cus_ada", event_name="api.request", **values)


class API:
    """Keeps what arrives; each request first goes to a script, whose answers go before its own."""

    def __init__(self, *statuses: int, script: Script | None = None, headers: dict[str, str] | None = None) -> None:
        self.statuses = list(statuses)
        self.script = script
        self.headers = headers or {}
        self.batches: list[list[str]] = []
        self.stored: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            events = json.loads(request.content)["events"]
            ids = [item["event_id"] for item in events]
            self.batches.append(ids)
            if self.statuses and (status := self.statuses.pop(0)) != 200:
                return httpx.Response(status, json={"code": "C", "message": "m"}, headers=self.headers)
            if self.script and (response := self.script(request, ids)):
                return response
            new = [item for item in events if item["event_id"] not in self.stored]
            self.stored.update((item["event_id"], item) for item in new)
            counts = {"ingested_count": len(new), "duplicate_count": len(events) - len(new)}
            return httpx.Response(200, json=counts)

    def client(self, **options: Any) -> MeteringClient:
        return MeteringClient("http://api.test", "k", transport=httpx.MockTransport(self), **options)

    def async_client(self) -> AsyncMeteringClient:
        return AsyncMeteringClient("http://api.test", "k", transport=httpx.MockTransport(self))


Deliver = Callable[..., Any]


@pytest.fixture(params=KINDS)
def deliver(request: pytest.FixtureRequest) -> Deliver:
    """Records events with one of the two recorders, and ends it; gives it back."""

    def by_threads(api: API, events: Iterable[Event], **options: Any) -> Recorder:
        with Recorder(api.client(), **{"backoff": lambda attempt: 0.0, **options}) as recorder:
            for item in events:
                recorder.record(item)
        return recorder

    def by_asyncio(api: API, events: Iterable[Event], **options: Any) -> AsyncRecorder:
        async def main() -> AsyncRecorder:
            async with AsyncRecorder(api.async_client(), **{"backoff": lambda attempt: 0.0, **options}) as recorder:
                for item in events:
                    recorder.record(item)
            return recorder

        return asyncio.run(main())

    return by_threads if request.param == "threads" else by_asyncio


def ids(count: int) -> list[str]:
    return [f"e{number}" for number in range(count)]


def events(count: int) -> list[Event]:
    return [event(number) for number in range(count)]


# What arrives.


def test_everything_is_delivered_at_the_end_in_batches_of_at_most_1000(deliver: Deliver) -> None:
    api = API()
    recorder = deliver(api, events(2500), interval=60)
    assert sorted(api.stored) == sorted(ids(2500))
    assert sorted(map(len, api.batches)) == [500, 1000, 1000]
    stats = recorder.stats
    assert (stats.recorded, stats.delivered, stats.buffered, stats.oldest_age) == (2500, 2500, 0, 0.0)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_batch_that_was_not_taken_is_sent_again_with_the_same_ids(deliver: Deliver, status: int) -> None:
    api = API(status, status)
    recorder = deliver(api, events(3))
    assert api.batches == [ids(3)] * 3
    assert (recorder.stats.delivered, recorder.stats.retried) == (3, 6)


@pytest.mark.parametrize("status", [204, 301, 401, 402, 403, 404, 415])
def test_an_answer_that_a_setting_is_wrong_kills_no_event(
    deliver: Deliver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    api = API(status)
    problems: list[MeterprintError] = []
    recorder = deliver(api, events(3), on_problem=problems.append, shutdown_timeout=1)
    assert sorted(api.stored) == ids(3)
    assert recorder.stats.dead == 0
    assert len(problems) == 1
    assert "3 events kept, not delivered" in caplog.text


def test_a_refusal_that_no_metering_api_wrote_kills_no_event(deliver: Deliver) -> None:
    answers = [httpx.Response(400, text="<h1>Bad Gateway Request</h1>"), httpx.Response(200, text="<h1>Log in</h1>")]
    api = API(script=lambda request, ids: answers.pop() if answers else None)
    recorder = deliver(api, events(3), shutdown_timeout=2)
    assert sorted(api.stored) == ids(3)
    assert recorder.stats.dead == 0


def test_an_event_that_is_recorded_twice_is_sent_once(deliver: Deliver) -> None:
    api = API()
    recorder = deliver(api, [event(1), event(2), event(1)], interval=60)
    assert api.batches == [["e1", "e2"]]
    assert (recorder.stats.delivered, recorder.stats.duplicates) == (2, 1)


def test_events_that_the_api_had_already_are_counted_as_duplicates(deliver: Deliver) -> None:
    api = API()
    api.stored = {"e1": {}}
    recorder = deliver(api, events(3))
    assert (recorder.stats.delivered, recorder.stats.duplicates) == (2, 1)


def test_a_lost_answer_bills_nothing_twice(deliver: Deliver) -> None:
    def lose(request: httpx.Request, ids: list[str]) -> None:
        if len(api.batches) == 1:
            api.stored.update((i, {}) for i in ids)
            raise httpx.ReadError("cut")

    api = API(script=lose)
    recorder = deliver(api, events(3))
    assert (recorder.stats.delivered, recorder.stats.duplicates, recorder.stats.retried) == (0, 3, 3)


def test_a_body_over_5_mib_is_split(deliver: Deliver) -> None:
    sizes: list[int] = []

    def measure(request: httpx.Request, ids: list[str]) -> None:
        sizes.append(len(request.content))

    api = API(script=measure)
    large = {f"k{number}": "x" * 500 for number in range(50)}
    deliver(api, [event(number, metadata=large) for number in range(500)])
    assert len(api.stored) == 500
    assert len(sizes) == 3
    assert max(sizes) <= 5 * 1024 * 1024


# What is refused.


def refuse(poison: set[str], *, pointers: bool = False, status: int = 400, code: str = "INVALID_METADATA") -> Script:
    def script(request: httpx.Request, ids: list[str]) -> httpx.Response | None:
        bad = [index for index, event_id in enumerate(ids) if event_id in poison]
        if not bad:
            return None
        details = [{"pointer": f"/events/{index}/metadata/a", "reason": "bad"} for index in bad] if pointers else []
        return httpx.Response(status, json={"code": code, "message": "poison", "details": details})

    return script


@pytest.mark.parametrize(("pointers", "most"), [(True, 2), (False, 25)])
@pytest.mark.parametrize("position", [0, 499, 500, 999])
def test_one_poison_event_takes_no_other_with_it(deliver: Deliver, pointers: bool, most: int, position: int) -> None:
    letters: list[DeadLetter] = []
    api = API(script=refuse({f"e{position}"}, pointers=pointers))
    recorder = deliver(api, events(1000), on_dead=letters.append, interval=60)
    assert sorted(api.stored) == sorted(set(ids(1000)) - {f"e{position}"})
    assert len(api.batches) <= most
    assert [(letter.event_id, letter.code) for letter in letters] == [(f"e{position}", "INVALID_METADATA")]
    assert recorder.dead_letters == letters
    assert ("/metadata/a: bad" if pointers else "poison") in letters[0].reason
    assert (recorder.stats.delivered, recorder.stats.dead) == (999, 1)


def test_several_poison_events_are_all_found(deliver: Deliver) -> None:
    poison = {"e3", "e4", "e777"}
    api = API(script=refuse(poison))
    recorder = deliver(api, events(1000))
    assert set(ids(1000)) - set(api.stored) == poison
    assert {letter.event_id for letter in recorder.dead_letters} == poison


def test_a_batch_that_is_too_large_for_a_proxy_is_halved(deliver: Deliver) -> None:
    def limit(request: httpx.Request, ids: list[str]) -> httpx.Response | None:
        return httpx.Response(413, text="Request Entity Too Large") if len(ids) > 100 else None

    api = API(script=limit)
    recorder = deliver(api, events(1000))
    assert len(api.stored) == 1000
    assert recorder.stats.dead == 0


@pytest.mark.parametrize(
    ("status", "code"), [(409, "CONFLICT"), (400, "DUPLICATE_EVENT_ID"), (422, "DUPLICATE_EVENT_ID")]
)
def test_a_duplicate_that_is_reported_as_an_error_is_delivered(deliver: Deliver, status: int, code: str) -> None:
    api = API(script=refuse({"e7"}, status=status, code=code))
    recorder = deliver(api, events(20))
    assert len(api.stored) == 19
    assert (recorder.stats.delivered, recorder.stats.duplicates, recorder.stats.dead) == (19, 1, 0)


# What the application sees.


def test_a_bad_event_raises_in_a_strict_recorder_and_is_a_dead_letter_in_another(deliver: Deliver) -> None:
    api = API()
    with Recorder(api.client(), strict=True) as strict, pytest.raises(ValidationError, match="/metadata/a: null"):
        strict.record("api.request", customer_id="cus_ada", metadata={"a": None})  # type: ignore[dict-item]
    with Recorder(api.client(), strict=False) as lenient:
        lenient.record("api.request", customer_id="", metadata={"a": 1})
        lenient.record("api.request", customer_id="cus_ada", metadata={"a": 1})
    (letter,) = lenient.dead_letters
    assert letter.reason.startswith("/customer_id: ")
    assert (lenient.stats.recorded, lenient.stats.delivered, lenient.stats.dead) == (2, 1, 1)


def test_a_name_is_stamped_with_time_and_id_at_once() -> None:
    api = API()
    moment = datetime.now(UTC)
    metadata: dict[str, Any] = {"endpoint": "/ö", "n": 1}
    with Recorder(api.client(), clock=lambda: int(moment.timestamp() * 1e9)) as recorder:
        recorder.record("api.request", customer_id="cus_ada", metadata=metadata)
        metadata["n"] = 2
        recorder.record("api.request", customer_id="cus_ada", metadata=metadata, event_id="mine")
        recorder.record("api.request", customer_id="cus_ada")
    stored = list(api.stored.values())
    assert [item["metadata"] for item in stored] == [{"endpoint": "/ö", "n": 1}, {"endpoint": "/ö", "n": 2}, {}]
    assert {item["timestamp"] for item in stored} == {moment.isoformat(timespec="microseconds").replace("+00:00", "Z")}
    assert stored[1]["event_id"] == "mine"
    assert len(api.stored) == 3


def test_an_event_with_more_words_beside_it_is_a_mistake() -> None:
    with Recorder(API().client()) as recorder, pytest.raises(TypeError, match="the event has its own"):
        recorder.record(event(1), customer_id="cus_eve")


def test_a_flush_waits_for_what_was_recorded_and_says_whether_it_is_delivered() -> None:
    api = API()
    with Recorder(api.client(), interval=60) as recorder:
        recorder.record(event(1))
        assert api.stored == {}
        assert recorder.flush()
        assert list(api.stored) == ["e1"]
        api.statuses = [503] * 100_000
        recorder.record(event(2))
        assert not recorder.flush(timeout=0.05)
        assert recorder.stats.buffered == 1
        assert 0 < recorder.stats.oldest_age < 60
        api.statuses = []
        assert recorder.flush()
    assert list(api.stored) == ["e1", "e2"]


def test_steady_traffic_does_not_put_the_interval_off() -> None:
    api = API()
    with Recorder(api.client(), interval=0.05) as recorder:
        for number in range(40):
            recorder.record(event(number))
            time.sleep(0.005)
        assert len(api.batches) >= 2
        assert all(len(batch) < 40 for batch in api.batches)


def test_several_requests_are_in_flight_when_the_api_is_slow() -> None:
    together = threading.Barrier(3)

    class Slow(API):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            together.wait(timeout=5)  # passes only when three requests are here at once
            return super().__call__(request)

    api = Slow()
    with Recorder(api.client(), max_in_flight=3) as recorder:
        for number in range(3000):
            recorder.record(event(number))
    assert len(api.stored) == 3000


@pytest.mark.parametrize("name", ["Retry-After", "X-RateLimit-Reset"])
def test_a_pause_that_the_api_asks_for_is_kept(deliver: Deliver, name: str) -> None:
    moments: list[float] = []

    def busy(request: httpx.Request, ids: list[str]) -> httpx.Response | None:
        moments.append(time.monotonic())
        headers = {name: "1"}
        return httpx.Response(429, json={"code": "TOO_MANY_REQUESTS"}, headers=headers) if len(moments) == 1 else None

    api = API(script=busy)
    deliver(api, events(2500))
    assert len(api.stored) == 2500
    # Requests that were under way already may follow at once; the second try of the first batch may not.
    assert moments[-1] - moments[0] >= 1.0


def test_an_error_that_nobody_thought_of_does_not_end_delivery(
    deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(request: httpx.Request, ids: list[str]) -> None:
        if len(api.batches) == 1:
            raise ZeroDivisionError("on purpose")

    api = API(script=odd)
    deliver(api, events(3))
    assert sorted(api.stored) == ids(3)
    assert "on purpose" in caplog.text


def test_stats_can_be_read_while_other_threads_record() -> None:
    api = API()
    done = threading.Event()
    with Recorder(api.client(), max_buffered=10**6) as recorder:

        def record() -> None:
            for number in range(20_000):
                recorder.record("api.request", customer_id="cus_ada", metadata={"n": number})
            done.set()

        thread = threading.Thread(target=record)
        thread.start()
        while not done.is_set():
            assert 0 <= recorder.stats.recorded <= 20_000
        thread.join()
    assert recorder.stats.delivered == 20_000


def test_a_callback_that_fails_disturbs_nothing(deliver: Deliver, caplog: pytest.LogCaptureFixture) -> None:
    def fail(what: object) -> None:
        raise RuntimeError("on purpose")

    api = API(503, script=refuse({"e1"}))
    deliver(api, events(3), on_dead=fail, on_problem=fail)
    assert sorted(api.stored) == ["e0", "e2"]
    assert "a callback failed" in caplog.text


def test_no_key_is_in_the_log_or_in_the_text_of_a_recorder(caplog: pytest.LogCaptureFixture) -> None:
    api = API(401, 503, 400)
    client = MeteringClient("http://api.test", "sk_secret", transport=httpx.MockTransport(api))
    with caplog.at_level(logging.DEBUG), Recorder(client, backoff=lambda attempt: 0.0, shutdown_timeout=1) as recorder:
        recorder.record(event(1))
    assert "sk_secret" not in caplog.text + repr(recorder) + repr(client)


# The full buffer.


class Away(API):
    """No answer until it is back."""

    def __init__(self) -> None:
        super().__init__(script=self.is_away)
        self.back = threading.Event()

    def is_away(self, request: httpx.Request, ids: list[str]) -> httpx.Response | None:
        return None if self.back.is_set() else httpx.Response(503, json={"code": "C", "message": "m"})


def test_a_full_buffer_blocks_for_a_bounded_time_and_then_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    api = Away()
    with Recorder(api.client(), max_buffered=10, block_timeout=0.2, backoff=lambda attempt: 0.01) as recorder:
        start = time.monotonic()
        for number in range(50):
            recorder.record(event(number))
        assert 0.2 <= time.monotonic() - start < 1.0  # one wait for all, not one for each
        assert recorder.stats.dropped == 40
        api.back.set()
    assert sorted(api.stored) == sorted(ids(10))
    assert recorder.stats.recorded == 50
    assert "the buffer is full" in caplog.text


def test_a_blocked_record_goes_on_as_soon_as_there_is_room() -> None:
    api = Away()
    with Recorder(api.client(), max_buffered=10, block_timeout=30, backoff=lambda attempt: 0.01) as recorder:
        threading.Timer(0.1, api.back.set).start()
        for number in range(50):
            recorder.record(event(number))
        assert recorder.stats.dropped == 0
    assert len(api.stored) == 50


def test_a_full_buffer_drops_and_counts(deliver: Deliver) -> None:
    api = API()
    recorder = deliver(api, events(5), max_buffered=3, full="drop", interval=60)
    assert sorted(api.stored) == ids(3)
    assert (recorder.stats.recorded, recorder.stats.dropped) == (5, 2)


# Late events, and clocks.


def old(number: int, hours: float) -> Event:
    return event(number, timestamp=datetime.now(UTC) - timedelta(hours=hours))


def test_a_late_event_is_a_dead_letter_by_default(deliver: Deliver) -> None:
    api = API()
    recorder = deliver(api, [old(1, 2), event(2)])
    assert list(api.stored) == ["e2"]
    (letter,) = recorder.dead_letters
    assert (letter.event_id, letter.code) == ("e1", "INVALID_TIMESTAMP")
    assert "older than 1 hour" in letter.reason


def test_a_late_event_can_be_stamped_anew_and_keeps_its_time(deliver: Deliver) -> None:
    api = API()
    late = old(1, 2)
    deliver(api, [late, event(2)], late="restamp")
    stored = api.stored["e1"]
    assert stored["metadata"] == {"original_timestamp": late.to_wire()["timestamp"]}
    assert datetime.now(UTC) - datetime.fromisoformat(stored["timestamp"]) < timedelta(minutes=1)
    assert api.stored["e2"]["metadata"] == {}


# Bad settings.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": -1}, "interval=-1: give more than 0 seconds"),
        ({"interval": "1"}, "interval='1': give more than 0 seconds"),
        ({"max_in_flight": 0}, "max_in_flight=0: give more than 0 requests"),
        ({"max_buffered": float("nan")}, "max_buffered=nan: give more than 0 events"),
        ({"shutdown_timeout": -0.1}, "shutdown_timeout=-0.1: give 0 or more seconds"),
        ({"full": "explode"}, "full='explode': choose one of 'block', 'spill', 'drop'"),
        ({"full": "spill"}, "full='spill' needs a spool"),
        ({"late": "never"}, "late='never': choose one of"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Recorder(API().client(), **options)


def test_an_event_loop_is_never_blocked() -> None:
    with pytest.raises(ConfigurationError, match="full='block' would stop the event loop"):
        AsyncRecorder(API().async_client(), full="block")


def test_a_closed_recorder_says_so(deliver: Deliver) -> None:
    recorder = deliver(API(), [])
    with pytest.raises(MeterprintError, match="this recorder is closed"):
        recorder.record(event(1))


def test_from_env_reads_the_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_API_URL", "http://api.test")
    monkeypatch.setenv("METERING_API_KEY", "k")
    Recorder.from_env(interval=3).close()
    asyncio.run(AsyncRecorder.from_env(interval=3).aclose())
    monkeypatch.delenv("METERING_API_KEY")
    with pytest.raises(ConfigurationError, match="METERING_API_KEY not set"):
        Recorder.from_env()


# The ends.


def test_one_recorder_that_cannot_end_keeps_no_other_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def _end(self) -> None:
            raise RuntimeError("on purpose")

        def _after_fork(self) -> None:
            pass

    broken, api = Broken(), API()
    exits.watch(broken)
    recorder = Recorder(api.client(), interval=60)
    recorder.record(event(1))
    exits._end_all()
    exits.forget(broken)
    assert list(api.stored) == ["e1"]
    assert "a recorder did not end as it should" in caplog.text


def test_what_is_to_be_recorded_at_the_end_is_recorded_and_one_failure_keeps_no_other_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = API()
    with Recorder(api.client(), interval=60) as recorder:
        recorder.on_end(lambda: recorder.record(event(1)))
        recorder.on_end(lambda: 1 / 0)
        recorder.on_end(lambda: recorder.record(event(2)))
    recorder.close()
    assert sorted(api.stored) == ["e1", "e2"]
    assert "division by zero" in caplog.text


def test_the_end_of_the_process_comes_to_what_is_to_be_recorded_too() -> None:
    api = API()
    recorder = Recorder(api.client(), interval=60)
    recorder.on_end(lambda: recorder.record(event(1)))
    exits._end_all()
    assert list(api.stored) == ["e1"]


def test_the_end_is_bounded_when_nobody_answers(deliver: Deliver, caplog: pytest.LogCaptureFixture) -> None:
    api = API(*[503] * 1_000_000)
    start = time.monotonic()
    recorder = deliver(api, events(3), shutdown_timeout=0.2, backoff=lambda attempt: 0.01)
    assert time.monotonic() - start < 2
    assert recorder.stats.buffered == 3
    assert "3 events are lost" in caplog.text


def test_the_end_does_not_sit_out_a_pause_that_is_longer(deliver: Deliver) -> None:
    api = API(*[429] * 1000, headers={"Retry-After": "300"})
    start = time.monotonic()
    deliver(api, events(3), shutdown_timeout=60)
    assert time.monotonic() - start < 5


def test_where_no_thread_can_start_flush_and_close_send(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # as at the end of the interpreter, and in the browser

    monkeypatch.setattr(threading.Thread, "start", refuse)
    api = API(503)
    with Recorder(api.client(), backoff=lambda attempt: 0.0) as recorder:
        recorder.record(event(1))
        assert recorder.flush()
        assert list(api.stored) == ["e1"]
        recorder.record(event(2))
    assert list(api.stored) == ["e1", "e2"]


def test_a_cancelled_end_leaves_promptly() -> None:
    api = API(*[503] * 1_000_000)

    async def main() -> AsyncRecorder:
        recorder = AsyncRecorder(api.async_client(), shutdown_timeout=60, backoff=lambda attempt: 0.05)

        async def application() -> None:
            async with recorder:
                recorder.record(event(1))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(application(), 0.2)
        return recorder

    start = time.monotonic()
    recorder = asyncio.run(main())
    assert time.monotonic() - start < 3
    assert recorder.stats.buffered == 1


def test_a_cancelled_flush_loses_nothing() -> None:
    api = Away()

    async def main() -> None:
        async with AsyncRecorder(api.async_client(), backoff=lambda attempt: 0.02) as recorder:
            recorder.record(event(1))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(recorder.flush(timeout=60), 0.1)
            api.back.set()

    asyncio.run(main())
    assert list(api.stored) == ["e1"]


def test_events_of_other_threads_and_of_before_the_loop_arrive_by_asyncio() -> None:
    api = API()
    recorder = AsyncRecorder(api.async_client(), interval=0.05)
    recorder.record(event(0))

    async def main() -> None:
        async with recorder:
            await asyncio.to_thread(recorder.record, event(1))
            assert await recorder.flush()
            assert sorted(api.stored) == ids(2)

    asyncio.run(main())
