"""`meterprint demo`: believable usage, the same for the same seed, in a local metering API alone."""

import re
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from commands import CLEAN, METERPRINT, meterprint, on_a_terminal
from meterprint import Event, MeteringClient
from meterprint.blueprints import BLUEPRINTS
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.cli import LOCAL_KEY
from meterprint.demo import CUSTOMERS, EVENTS, HOUR, Step, Tally, hour, play
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.testing import InProcess
from stand_ins import Broken, Hosted, Watch

ALL = list(BLUEPRINTS.values())
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def api() -> Iterator[Server]:
    with Server(create_app(MemoryStore())) as server:
        yield server


def environment(url: str) -> dict[str, str]:
    return {"METERING_API_URL": url, "METERING_API_KEY": LOCAL_KEY}


def played(steps: list[Step], app: Any = None, seconds: float = 20) -> tuple[Tally, Watch, list[Event]]:
    watch, tally = Watch(), Tally()
    app = app or create_app(MemoryStore(), clock=lambda: NOW + timedelta(seconds=watch.now))
    with MeteringClient("http://api.test", "k", transport=InProcess(app), sleep=watch.sleep) as client:
        play(client, steps, NOW, seconds, tally, tell=lambda done: None, clock=watch, sleep=watch.sleep)
        return tally, watch, list(client.events())


@pytest.fixture(scope="module")
def first() -> tuple[Tally, Watch, list[Event]]:
    return played(hour(ALL, 1))


def test_the_same_seed_gives_the_same_usage_and_another_seed_other_usage() -> None:
    assert hour(ALL, 1) == hour(ALL, 1)
    assert hour(ALL, 1) != hour(ALL, 2)


def test_two_plays_of_a_seed_leave_the_same_events_apart_from_ids_and_times(
    first: tuple[Tally, Watch, list[Event]],
) -> None:
    def left(events: list[Event]) -> Counter[str]:
        return Counter(f"{event.customer_id} {event.event_name} {sorted(event.metadata.items())}" for event in events)

    (_, _, one), (_, _, other) = first, played(hour(ALL, 1))
    assert left(one) == left(other)
    assert not {event.event_id for event in one} & {event.event_id for event in other}


def test_every_event_is_one_of_its_blueprint() -> None:
    kinds = {kind.name: blueprint for blueprint in ALL for kind in blueprint.events}
    drafts = [draft for step in hour(ALL, 1) for draft in step.drafts]
    for draft in drafts:
        kinds[draft.event_name].check(draft.event(NOW))
    assert {draft.event_name for draft in drafts} == {sample.event_name for b in ALL for sample in b.samples}


def test_customers_differ_in_volume_and_values_vary() -> None:
    drafts = [draft for step in hour(ALL, 1) if not step.mistake for draft in step.drafts]
    volumes = Counter(draft.customer_id for draft in drafts)
    assert [customer for customer, _ in volumes.most_common()] == list(CUSTOMERS)
    assert sum(volumes.values()) == pytest.approx(EVENTS, rel=0.01)
    assert len({draft.metadata.get("response_bytes") for draft in drafts}) > 100
    assert len({draft.metadata.get("status_code") for draft in drafts if "status_code" in draft.metadata}) < 10


def test_the_hour_has_a_curve_like_a_day_and_bursts() -> None:
    drafts = [draft for step in hour(ALL, 1) if not step.mistake for draft in step.drafts]
    minutes = Counter(int(draft.at // 60) for draft in drafts)
    assert set(minutes) == set(range(55))
    night = [minutes[minute] for minute in (0, 1, 2, 52, 53, 54)]
    day = [minutes[minute] for minute in range(15, 40)]
    assert sum(day) / len(day) > 3 * sum(night) / len(night)
    by_customer = Counter((draft.customer_id, int(draft.at // 60)) for draft in drafts)
    usual: defaultdict[str, list[int]] = defaultdict(list)
    for (customer, _), count in by_customer.items():
        usual[customer].append(count)
    assert any(max(counts) > 4 * sum(counts) / len(counts) for counts in usual.values())


def test_a_play_takes_the_time_it_is_given_and_reaches_back_55_minutes(
    first: tuple[Tally, Watch, list[Event]],
) -> None:
    tally, watch, events = first
    assert 18 < watch.now < 22
    times = [event.timestamp for event in events]
    assert NOW - HOUR <= min(times) < NOW - timedelta(minutes=52)
    assert NOW - timedelta(minutes=3) < max(times) <= NOW
    assert tally.stored == len(events)


def test_some_batches_come_twice_and_some_requests_are_refused_each_for_a_reason(
    first: tuple[Tally, Watch, list[Event]],
) -> None:
    tally, _, events = first
    assert tally.duplicates > 20
    assert sorted(tally.refused) == [
        "INVALID_METADATA",
        "INVALID_METADATA",
        "INVALID_REQUEST_BODY",
        "INVALID_TIMESTAMP",
    ]
    assert tally.sent == len(events) + tally.duplicates + 3 * len(tally.refused)


def test_a_mistake_that_an_api_takes_is_counted_as_stored() -> None:
    def mended(events: list[Any]) -> list[Any]:
        return [Event.from_wire({**event, "metadata": {}, "timestamp": None}).to_wire() for event in events]

    (stale,) = [step for step in hour(ALL, 1) if step.mistake and step.mistake.__name__ == "_stale"]
    tally, _, events = played([stale], Broken(events=mended))
    assert (tally.stored, tally.refused) == (3, [])
    assert len(events) == 3


def test_quantities_of_one_event_grow_together_and_codes_stay() -> None:
    (kind,) = BLUEPRINT.events
    sample = replace(BLUEPRINT.samples[1], metadata=kind.sample(request_bytes=1_000_000, response_bytes=3_000_000))
    drafts = [d for step in hour([replace(BLUEPRINT, samples=(sample,))], 1) for d in step.drafts]
    for metadata in (draft.metadata for draft in drafts):
        assert Decimal(metadata["response_bytes"]) / Decimal(metadata["request_bytes"]) == pytest.approx(
            Decimal(3), rel=Decimal("1e-4")
        )
        assert metadata["status_code"] == 200
    assert len({draft.metadata["request_bytes"] for draft in drafts}) > 1000


def test_the_meters_read_what_an_independent_count_of_the_events_gives(api: Server) -> None:
    began = time.monotonic()
    done = meterprint("demo", "--seconds", "2", "--seed", "5", environment=environment(api.url))
    assert time.monotonic() - began < 60
    assert done.returncode == 0, done.stderr
    with MeteringClient(api.url, LOCAL_KEY) as client:
        events = list(client.events())
        meters = {meter.name: client.usage_by_customer(meter.id or "") for meter in client.meters()}
    calls = [event for event in events if event.event_name == "api.request"]
    served = [e for e in calls if e.metadata["status_code"] not in (429, 503) and e.metadata["endpoint"] != "/health"]
    requests = Counter(event.customer_id for event in served)
    sent: Counter[str] = Counter()
    for event in served:
        sent[event.customer_id] += int(event.metadata["response_bytes"])
    assert meters["API requests"] == requests
    assert meters["Response bytes"] == sent
    for customer in CUSTOMERS:
        assert re.search(rf"{customer} +{requests[customer]:,} .* {sent[customer]:,} *\n", done.stdout)
    assert f"{len(events):,} stored" in done.stdout
    assert f"The dashboard: {api.url}/dashboard" in done.stdout
    assert re.findall(r"^ *(\d+)%", done.stdout, re.M) == [str(tenth * 10) for tenth in range(1, 11)]
    assert "\x1b" not in done.stdout + done.stderr
    # The dashboard shows the refusals.
    headers = {"Authorization": f"Bearer {LOCAL_KEY}"}
    items = httpx.get(f"{api.url}/local/rejections", headers=headers).json()["items"]
    assert [item["event_count"] for item in items] == [3, 3, 3, 3]
    assert all(item["details"][0]["pointer"].startswith("/events/2/") for item in items)


def test_an_api_that_is_not_local_gets_nothing() -> None:
    app = create_app(MemoryStore())
    with Server(Hosted(app)) as server:
        done = meterprint("demo", environment=environment(server.url))
    assert done.returncode == 1
    assert f"demo plays into a local metering API only, and {server.url} is none: `meterprint up` starts" in done.stderr
    with MeteringClient("http://api.test", LOCAL_KEY, transport=InProcess(app)) as client:
        assert list(client.events()) == []
        assert list(client.meters()) == []


def test_ctrl_c_ends_it_with_what_was_sent(api: Server) -> None:
    with subprocess.Popen(
        [METERPRINT, "demo", "--seconds", "50"],
        env={**CLEAN, **environment(api.url), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with MeteringClient(api.url, LOCAL_KEY) as client:
            while next(client.events(), None) is None:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 130
            stored = len(list(client.events()))
        assert process.stdout
        assert process.stderr
        said = re.search(r"Stopped: \d+ events sent: (\d+) stored, 0 known already", process.stdout.read())
        assert said
        assert 0 <= stored - int(said[1]) < 100  # what was under way may have been stored
        assert process.stderr.read() == ""


def test_a_terminal_shows_a_bar_and_no_lines_for_tenths(api: Server) -> None:
    shown = on_a_terminal("demo", "--seconds", "1", environment=environment(api.url))
    assert "an hour of usage" in shown
    assert "━" in shown
    assert "events sent\r\n" not in shown
    assert "5,000 stored" in shown
