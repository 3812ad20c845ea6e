"""Delivery in the background: what arrives, what is logged, and that nothing waits."""

import asyncio
import json
import logging
from collections.abc import Callable

import httpx
import pytest

from meterprint import AsyncMeteringClient, AsyncRecorder, Event

Handler = Callable[[httpx.Request], httpx.Response]


def event(number: int) -> Event:
    return Event(event_id=f"e{number}", customer_id="cus_ada", event_name="api.request")


class API:
    """Keeps what arrives; a script of statuses goes before it, and `poison` is always refused."""

    def __init__(self, *statuses: int, poison: str = "") -> None:
        self.statuses = list(statuses)
        self.poison = poison
        self.batches: list[list[str]] = []
        self.stored: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        ids = [item["event_id"] for item in json.loads(request.content)["events"]]
        self.batches.append(ids)
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return httpx.Response(status, json={"code": "C", "message": "m"})
        if self.poison in ids:
            return httpx.Response(400, json={"code": "INVALID_METADATA", "message": "poison"})
        self.stored += ids
        return httpx.Response(200, json={"ingested_count": len(ids)})

    def deliver(self, count: int, **options: float) -> None:
        async def no_pause(seconds: float) -> None:
            await asyncio.sleep(0)

        async def main() -> None:
            transport = httpx.MockTransport(self)
            client = AsyncMeteringClient("http://api.test", "k", retries=0, transport=transport)
            async with AsyncRecorder(client, sleep=no_pause, **options) as recorder:  # type: ignore[arg-type]
                for number in range(count):
                    recorder.record(event(number))

        asyncio.run(main())


def test_everything_is_delivered_at_the_end_in_batches_of_at_most_1000() -> None:
    api = API()
    api.deliver(2500)
    assert api.stored == [f"e{number}" for number in range(2500)]
    assert [len(batch) for batch in api.batches] == [1000, 1000, 500]


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_batch_is_kept_and_sent_again_with_the_same_ids(status: int) -> None:
    api = API(status, status)
    api.deliver(3)
    assert api.batches == [["e0", "e1", "e2"]] * 3
    assert api.stored == ["e0", "e1", "e2"]


def test_an_event_that_is_recorded_twice_is_sent_once() -> None:
    api = API()

    async def main() -> None:
        client = AsyncMeteringClient("http://api.test", "k", transport=httpx.MockTransport(api))
        async with AsyncRecorder(client, shutdown_timeout=5) as recorder:
            for number in (1, 2, 1):
                recorder.record(event(number))

    asyncio.run(main())
    assert api.batches == [["e1", "e2"]]


def test_one_refused_event_is_logged_and_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    api = API(poison="e37")
    api.deliver(100)
    assert sorted(api.stored) == sorted(f"e{number}" for number in range(100) if number != 37)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "e37 refused: 400 INVALID_METADATA" in record.getMessage()


def test_an_event_beyond_the_buffer_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    api = API()
    api.deliver(5, max_buffered=3)
    assert api.stored == ["e0", "e1", "e2"]
    assert "event e4 dropped: 3 events wait already" in caplog.text


def test_an_error_that_nobody_thought_of_does_not_end_delivery(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(API):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            if not self.batches:
                self.batches.append([])
                raise ZeroDivisionError("on purpose")
            return super().__call__(request)

    api = Odd()
    api.deliver(3)
    assert api.stored == ["e0", "e1", "e2"]
    assert "3 events not delivered, trying again: on purpose" in caplog.text


def test_the_end_is_bounded_when_nobody_answers(caplog: pytest.LogCaptureFixture) -> None:
    api = API(*[503] * 1_000_000)
    api.deliver(1, shutdown_timeout=0.05)
    assert api.stored == []
    assert "events are lost" in caplog.text


def test_from_env_reads_the_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_API_URL", "http://api.test")
    monkeypatch.setenv("METERING_API_KEY", "k")

    async def main() -> None:
        async with AsyncRecorder.from_env(shutdown_timeout=1):
            pass

    asyncio.run(main())
