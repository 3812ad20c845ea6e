"""Rollup: the meters read the same of few events as of many."""

import errno
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import die
from meterprint import (
    Aggregation,
    Condition,
    ConfigurationError,
    Event,
    Filter,
    Meter,
    MeteringClient,
    Recorder,
    Rollup,
    ValidationError,
)
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.spool import JOURNAL, Segment
from meterprint.testing import MeteringAPI

BY = ("endpoint", "method", "status_code")


@pytest.fixture
def calls() -> list[tuple[str, dict[str, Any]]]:
    chance = random.Random(20261124)
    return [
        (
            f"cus_{chance.randrange(3)}",
            {
                "endpoint": chance.choice(["/v1/orders", "/v1/search", "/health"]),
                "method": chance.choice(["GET", "POST"]),
                "status_code": chance.choice([200, 429, 503]),
                "duration_ms": chance.choice([0.1, 0.2, 12.345]),
                "request_bytes": chance.randrange(1000),
                "response_bytes": chance.randrange(10**6),
            },
        )
        for _ in range(5000)
    ]


def test_every_meter_of_the_blueprint_reads_the_same_of_a_hundredth_of_the_events(
    metering_api: MeteringAPI, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    rollup = Rollup(every=60, by=BY)
    duration = Meter("ms", "api.request", Aggregation("sum", "duration_ms"), "ms")
    with Recorder.from_env() as single, Recorder.from_env(rollup=rollup) as rolled:
        for customer_id, metadata in calls:
            single.record("api.request", customer_id=customer_id, metadata=metadata)
            rolled.record("api.request", customer_id=customer_id, metadata=metadata)
    for meter in (*BLUEPRINT.meters, duration):
        for customer_id in ("cus_0", "cus_1", "cus_2"):
            expected = metering_api.usage(meter, customer_id=customer_id)
            assert metering_api.usage(rollup.meter(meter), customer_id=customer_id) == expected
            assert expected > 0
    names = [event.event_name for event in metering_api.events]
    assert names.count("api.request") == 5000
    assert 0 < names.count("api.request.rollup") <= 2 * 3 * 3 * 2 * 3  # two windows, if a minute ended meanwhile


def test_fractions_add_up_as_the_metering_api_adds_them(metering_api: MeteringAPI) -> None:
    rollup = Rollup()
    meter = Meter("f", "n", Aggregation("sum", "f"), "f")
    bodies: list[bytes] = []
    with Recorder.from_env(rollup=rollup, clock=lambda: 1_795_512_600_000_000_000) as recorder:
        for _ in range(10):
            recorder.record("n", customer_id="c", metadata={"f": 0.1})
        assert recorder.stats.buffered == 1
        recorder._client = client_that_keeps(bodies)
    assert b'"f":1.0,' in bodies[0].replace(b"}", b",")
    assert rollup.meter(meter).aggregation == Aggregation("sum", "f")


def client_that_keeps(bodies: list[bytes]) -> MeteringClient:
    def keep(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={"ingested_count": 1})

    return MeteringClient("http://api.test", "k", transport=httpx.MockTransport(keep))


def test_values_that_are_equal_but_differ_make_groups_of_their_own(metering_api: MeteringAPI) -> None:
    with Recorder.from_env(rollup=Rollup(by=("v",))) as recorder:
        for value in (1, True, 1.0, "1"):
            recorder.record("n", customer_id="c", metadata={"v": value})
    assert sorted(map(repr, (event.metadata["v"] for event in metering_api.events))) == ["'1'", "1", "1.0", "True"]


def test_an_event_that_lacks_a_key_is_sent_as_it_is(metering_api: MeteringAPI) -> None:
    with Recorder.from_env(rollup=Rollup(by=("endpoint",))) as recorder:
        recorder.record("llm.usage", customer_id="c", metadata={"model": "m", "tokens": 3})
        recorder.record("odd", customer_id="c", metadata={"endpoint": "/", "count": 3})
    assert {event.event_name for event in metering_api.events} == {"llm.usage", "odd"}


def test_a_window_that_is_over_is_sent_without_a_flush(metering_api: MeteringAPI) -> None:
    with Recorder.from_env(rollup=Rollup(every=0.2), interval=0.05) as recorder:
        recorder.record("n", customer_id="c", metadata={"v": 1})
        for _ in range(100):
            if metering_api.events:
                break
            recorder._changed.acquire()
            recorder._changed.wait(0.05)
            recorder._changed.release()
        (event,) = metering_api.events
    assert event.metadata == {"count": 1, "v": 1}
    assert event.timestamp.timestamp() * 1e9 % 200_000_000 == 0


def test_a_flush_in_the_middle_of_a_window_loses_no_later_events(metering_api: MeteringAPI) -> None:
    with Recorder.from_env(rollup=Rollup(every=1800)) as recorder:
        for _ in range(3):
            recorder.record("n", customer_id="c", metadata={"v": 1})
            assert recorder.flush()
    assert sum(Decimal(str(event.metadata["v"])) for event in metering_api.events) == 3


def test_a_process_that_dies_loses_nothing_of_its_window(metering_api: MeteringAPI, tmp_path: Path) -> None:
    rollup = Rollup(every=1800, by=("v",))
    dying = Recorder.from_env(rollup=rollup, spool=tmp_path / "spool")
    for value in (1, 1, 2):
        dying.record("n", customer_id="c", metadata={"v": value, "bytes": 10})
    die(dying)
    with Recorder.from_env(rollup=rollup, spool=tmp_path / "spool"):
        pass
    found = {event.metadata["v"]: dict(event.metadata) for event in metering_api.events}
    assert found == {1: {"v": 1, "count": 2, "bytes": 20}, 2: {"v": 2, "count": 1, "bytes": 10}}
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["FORMAT"]


def test_a_window_whose_journal_cannot_begin_is_kept_in_memory(
    metering_api: MeteringAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = Segment.append

    def fail(self: Segment, line: bytes) -> None:
        if self.path.suffix == JOURNAL:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, line)

    with Recorder.from_env(rollup=Rollup(every=1800), spool=tmp_path / "spool") as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(Segment, "append", fail)
            recorder.record("n", customer_id="c", metadata={"v": 1})
        recorder.record("n", customer_id="c", metadata={"v": 1})
        assert not list((tmp_path / "spool").glob("*.rollup"))  # one without a header could not be read again
    (event,) = metering_api.events
    assert event.metadata == {"count": 2, "v": 2}
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    ("meter", "reason"),
    [
        (Meter("m", "n", Aggregation("max", "v"), "u"), "max has no sum"),
        (Meter("m", "n", Aggregation("sum", "endpoint"), "u"), '"endpoint" is in by'),
        (
            Meter("m", "n", Aggregation("count"), "u", Filter("and", (Condition("plan", "equals", "pro"),))),
            "plan is not in by",
        ),
    ],
)
def test_a_meter_that_sums_cannot_serve_is_refused(meter: Meter, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Rollup(by=("endpoint",)).meter(meter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0: give a window"),
        ({"every": -60}, "every=-60: give a window"),
        ({"every": 3600}, "at most 1800 seconds"),
        ({"every": "60"}, "every='60'"),
        ({"by": "endpoint"}, "by='endpoint': give a tuple"),
        ({"by": ("count",)}, "what the rollup itself counts"),
    ],
)
def test_a_rollup_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Rollup(**options)


def test_ids_of_a_window_are_the_same_when_summed_again() -> None:
    from meterprint.rollup import Window
    from meterprint.wire import line_of, stamped

    window = Window(Rollup(by=("v",)), 60_000_000_000, "source")
    events = [stamped(Event(f"e{n}", "c", "n", metadata={"v": n % 2, "b": n}), 0) for n in range(5)]
    for event in events:
        window.add(event)
    again = Window.from_journal([window.header(), *map(line_of, events)])
    assert again.lines() == window.lines()
    assert len(set(window.lines())) == 2
