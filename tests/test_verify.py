"""`meterprint apply` and `verify`: a blueprint's meters, and whether a metering API bills what it says."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from commands import CLEAN, ROOT, meterprint, on_a_terminal
from meterprint import (
    Aggregation,
    APIError,
    Blueprint,
    Condition,
    ConfigurationError,
    EventType,
    Field,
    Filter,
    Meter,
    MeteringClient,
    MeterprintError,
    Price,
    Sample,
    invoice,
)
from meterprint.apply import create, standings
from meterprint.blueprints import BLUEPRINTS
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.cli import LOCAL_KEY
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.scaffold import definition
from meterprint.testing import InProcess
from meterprint.verify import LONGEST_PAUSE, Pace, Verdict, faults, may_bill, verify
from stand_ins import Broken, Hosted, Watch

API_REQUESTS = BLUEPRINT.meters[0]


@pytest.fixture
def api() -> Iterator[Server]:
    with Server(create_app(MemoryStore())) as server:
        yield server


def environment(url: str) -> dict[str, str]:
    return {"METERING_API_URL": url, "METERING_API_KEY": LOCAL_KEY}


def client_of(app: Any, watch: Watch | None = None) -> MeteringClient:
    watch = watch or Watch()
    pace = Pace(clock=watch, sleep=watch.sleep)
    transport = InProcess(app)
    return MeteringClient(
        "http://api.test", "k", pace=pace, longest_pause=LONGEST_PAUSE, transport=transport, sleep=watch.sleep
    )


def verdict_of(app: Any, *, is_local: bool, watch: Watch | None = None, wait: float = 60) -> Verdict:
    watch = watch or Watch()
    with client_of(app, watch) as client:
        client.ensure_meters(BLUEPRINT.meters)
        return verify(client, BLUEPRINT, "cus_ada", is_local=is_local, wait=wait, sleep=watch.sleep)


def row_of(output: str, name: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(name))


# apply


def test_apply_creates_the_meters_and_changes_nothing_the_second_time(api: Server) -> None:
    first = meterprint("apply", "api_gateway", environment=environment(api.url))
    assert first.returncode == 0, first.stderr
    assert len(re.findall(r"\) +created", first.stdout)) == 4
    with MeteringClient(api.url, LOCAL_KEY) as client:
        created = list(client.meters())
        assert created == list(BLUEPRINT.meters)
        again = meterprint("apply", "api_gateway", environment=environment(api.url))
        assert again.stdout.count("already there") == 4
        assert [meter.id for meter in client.meters()] == [meter.id for meter in created]


def test_a_dry_run_says_what_is_not_there_and_creates_nothing(api: Server) -> None:
    done = meterprint("apply", "api_gateway", "--dry-run", environment=environment(api.url))
    assert done.returncode == 0
    assert done.stdout.count("not there") == 4
    with MeteringClient(api.url, LOCAL_KEY) as client:
        assert list(client.meters()) == []


def test_another_definition_under_the_same_name_stops_apply_and_is_named(api: Server) -> None:
    with MeteringClient(api.url, LOCAL_KEY) as client:
        other = client.create_meter(replace(API_REQUESTS, filter=None))
        done = meterprint("apply", "api_gateway", environment=environment(api.url))
        assert list(client.meters()) == [other]
    assert done.returncode == 1
    assert "another definition" in row_of(done.stdout, "API requests")
    assert f"another meter is named 'API requests' ({other.id}): its filter is None" in done.stderr
    assert "A definition never changes: rename that meter" in done.stderr


def test_an_archived_meter_stops_apply_until_it_may_be_taken_back(api: Server) -> None:
    with MeteringClient(api.url, LOCAL_KEY) as client:
        created = client.ensure_meters(BLUEPRINT.meters)
        client.archive_meter(created[0].id or "")
        done = meterprint("apply", "api_gateway", environment=environment(api.url))
        assert done.returncode == 1
        assert "there, but archived" in row_of(done.stdout, "API requests")
        assert "`--unarchive` takes it back into use" in done.stderr
        done = meterprint("apply", "api_gateway", "--unarchive", environment=environment(api.url))
        assert done.returncode == 0
        assert "back in use" in row_of(done.stdout, "API requests")
        assert len(list(client.meters())) == 4


def test_a_new_description_or_unit_makes_no_other_meter() -> None:
    with client_of(create_app(MemoryStore())) as client:
        client.create_meter(replace(API_REQUESTS, description="Rewritten by hand.", measurement_unit="call"))
        assert [standing.state for standing in standings(client, BLUEPRINT.meters)] == ["there", *["missing"] * 3]


def test_a_filter_that_the_api_lost_is_seen_in_its_list() -> None:
    class Careless(MemoryStore):
        """Forgets filters."""

        def put_meter(self, ledger: str, stored: Any) -> None:
            super().put_meter(ledger, replace(stored, meter=replace(stored.meter, filter=None)))

    with client_of(create_app(Careless())) as client:
        create(client, API_REQUESTS)
        assert standings(client, [API_REQUESTS])[0].state == "different"


def test_a_created_meter_that_came_back_otherwise_is_an_error() -> None:
    class Answering:
        def create_meter(self, meter: Meter) -> Meter:
            return replace(meter, aggregation=Aggregation("sum", "bytes"), id="mtr_1")

    with pytest.raises(MeterprintError, match="made another meter of 'API requests' than it was asked for"):
        create(Answering(), API_REQUESTS)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# verify, against the local metering API


def test_verify_finds_every_quantity_and_the_invoice_right_again_and_again(api: Server) -> None:
    assert meterprint("apply", "api_gateway", environment=environment(api.url)).returncode == 0
    for _ in range(2):
        done = meterprint("verify", "api_gateway", environment=environment(api.url))
        assert done.returncode == 0, done.stderr
        assert re.search(r"Response bytes +byte +2,004,945,920 +2,004,945,920 +ok", done.stdout)
        assert re.search(r"Total +5.69 USD +5.69 USD +ok", done.stdout)
        assert "2,500 - 1,000 free = 1,500 x 0.2 cents = 3.00 USD" in done.stdout
        assert "differs" not in done.stdout
        assert "\x1b" not in done.stdout + done.stderr


def test_without_meters_verify_sends_nothing_and_names_apply(api: Server) -> None:
    done = meterprint("verify", "api_gateway", environment=environment(api.url))
    assert done.returncode == 1
    assert "4 of 4 meters are not there or not in use (API requests, " in done.stderr
    assert "`meterprint apply` creates them" in done.stderr
    with MeteringClient(api.url, LOCAL_KEY) as client:
        assert list(client.events()) == []


def test_a_customer_with_usage_of_its_own_is_refused() -> None:
    app = create_app(MemoryStore())
    verdict_of(app, is_local=True)
    with pytest.raises(ConfigurationError, match="cus_ada has usage already"):
        verdict_of(app, is_local=True)


def test_a_moved_test_clock_is_followed() -> None:
    app = create_app(MemoryStore())
    with client_of(app) as client:
        client._call("POST", "/local/clock", json={"now": "2030-03-01T00:00:00Z"})
    assert verdict_of(app, is_local=True).is_right
    with client_of(app) as client:
        assert {(event.timestamp.year, event.timestamp.month) for event in client.events()} == {(2030, 2)}


def forget_each_tenth(events: list[Any]) -> list[Any]:
    return [event for number, event in enumerate(events) if number % 10]


def as_strings(events: list[Any]) -> list[Any]:
    for event in events:
        event["metadata"]["response_bytes"] = str(event["metadata"]["response_bytes"])
    return events


@pytest.mark.parametrize(
    ("app", "wrong", "cause"),
    [
        (Broken(events=forget_each_tenth), "API requests", "events that it counts are not there"),
        (Broken(events=as_strings), "Response bytes", 'response_bytes was 2048 and is "2048"'),
        (Broken(quantity=lambda text: f"{Decimal(text) + 1:f}"), "Orders created", "every event is there as it was"),
        (Broken(quantity=lambda text: f"-{text}"), "Premium requests", "adds up or filters otherwise"),
    ],
    ids=["forgets events", "changes types", "adds up wrong", "less than nothing"],
)
def test_an_api_that_bills_wrong_fails_by_the_name_of_the_meter(app: Broken, wrong: str, cause: str) -> None:
    with Server(app) as server:
        with MeteringClient(server.url, LOCAL_KEY) as client:
            client.ensure_meters(BLUEPRINT.meters)
        done = meterprint("verify", "api_gateway", environment=environment(server.url))
    assert done.returncode == 1
    assert "differs" in row_of(done.stdout, wrong)
    assert "differs" in row_of(done.stdout, "Total")
    assert cause in done.stdout
    assert re.search(r"error: it does not bill what api_gateway says \(\d of 4 meters: .*" + wrong, done.stderr)


def test_usage_from_elsewhere_is_told_from_what_is_lost() -> None:
    def twice(events: list[Any]) -> list[Any]:
        copies = [{**event, "event_id": event["event_id"] + "-copy"} for event in events]
        return [*events, *copies[: 1000 - len(events)]]

    verdict = verdict_of(Broken(events=twice), is_local=True)
    (requests, *_) = verdict.wrong
    assert requests.measured == 2875
    assert requests.causes == ("375 events of the customer are there that were not sent: does something else bill it?",)


def test_a_terminal_shows_colours(api: Server) -> None:
    shown = on_a_terminal("apply", "api_gateway", environment=environment(api.url))
    assert shown.count("\x1b[32mcreated\x1b[0m") == 4
    shown = on_a_terminal("verify", "api_gateway", environment=environment(api.url))
    assert "\x1b[32mok" in shown


# verify, against a hosted metering API


def test_a_hosted_api_is_read_page_by_page_below_its_rate_limit() -> None:
    watch = Watch()
    hosted = Hosted(clock=watch)
    verdict = verdict_of(hosted, is_local=False, watch=watch)
    assert verdict.is_right
    assert hosted.answered > 80  # 2,625 events of the customer, and 5,100 of the meters, 100 a page
    assert hosted.refused == 0
    assert len(watch.pauses) >= hosted.answered // 20 - 1


def test_many_requests_stay_below_the_limit_of_a_minute() -> None:
    watch = Watch()
    hosted = Hosted(clock=watch)
    with client_of(hosted, watch) as client:
        for _ in range(500):
            list(client.meters())
    assert (hosted.answered, hosted.refused) == (500, 0)
    assert 120 < watch.now < 180


def test_a_narrower_limit_is_waited_out_as_the_answer_asks() -> None:
    watch = Watch()
    hosted = Hosted(clock=watch, limits=((30, 50.0),))
    assert verdict_of(hosted, is_local=False, watch=watch).is_right
    assert hosted.refused > 0
    assert max(watch.pauses) > 30


def test_events_that_are_not_visible_at_once_are_waited_for() -> None:
    watch = Watch()
    assert verdict_of(Hosted(clock=watch, delay=12), is_local=False, watch=watch).is_right
    assert sum(watch.pauses) > 12


def test_events_that_stay_away_end_the_wait_and_are_named_as_missing() -> None:
    watch = Watch()
    verdict = verdict_of(Hosted(clock=watch, delay=10_000), is_local=False, watch=watch, wait=20)
    assert [reading.measured for reading in verdict.readings] == [0, 0, 0, 0]
    assert "2,500 of the 2,500 events that it counts are not there" in verdict.readings[0].causes[0]
    assert "or still on their way" in verdict.readings[0].causes[0]
    assert 10 < sum(watch.pauses) < 40


def test_a_hosted_api_that_drops_a_filter_is_found_out() -> None:
    def without_filter(query: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in query.items() if name != "meter_id"}

    watch = Watch()
    verdict = verdict_of(Hosted(Broken(query=without_filter), clock=watch), is_local=False, watch=watch)
    assert {reading.meter.name for reading in verdict.wrong} == {meter.name for meter in BLUEPRINT.meters}
    assert verdict.readings[0].measured == 2625
    assert "filters otherwise (GET /meters/mtr_" in verdict.readings[0].causes[0]


def test_the_commands_work_against_a_hosted_api_with_a_blueprint_of_ones_own(tmp_path: Path) -> None:
    hosted = Hosted(delay=0.3)
    few = tuple(replace(sample, times=sample.times // 20 or 1) for sample in BLUEPRINT.samples)
    read = [meter.measure(list(replace(BLUEPRINT, samples=few).sample_events("cus_ada"))) for meter in BLUEPRINT.meters]
    quantities = {meter.name: quantity for meter, quantity in zip(BLUEPRINT.meters, read, strict=True)}
    total = invoice(BLUEPRINT.prices, quantities).total
    small = replace(BLUEPRINT, samples=few, quantities=quantities, invoice_total=total)
    (tmp_path / "small.py").write_text(definition(small))
    with Server(hosted) as server:
        applied = meterprint("apply", "small.py", environment=environment(server.url), cwd=tmp_path)
        assert applied.returncode == 0, applied.stderr
        done = meterprint("verify", "small.py", "--wait", "5", environment=environment(server.url), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "132 events of cus_verify_" in done.stdout
    assert "read back page by page, from its list of events" in done.stdout
    assert done.stdout.count(" ok ") + done.stdout.count(" ok\n") == 9
    assert hosted.refused == 0


@pytest.mark.parametrize(
    ("url", "bills"),
    [
        ("https://live.dodopayments.com", True),
        ("https://billing.example.com", True),
        ("https://test.dodopayments.com", False),
        ("http://127.0.0.1:4141", False),
        ("http://metering-api.test", False),
        ("https://test.dodopayments.com.attacker.example", True),
    ],
)
def test_only_hosts_that_are_for_tests_alone_take_the_sample_usage_unasked(url: str, bills: bool) -> None:
    assert may_bill(url) is bills


def test_a_local_api_at_another_address_takes_it_too(api: Server) -> None:
    url = f"http://0.0.0.0:{api.port}"
    assert may_bill(url)
    done = meterprint("verify", "api_gateway", environment=environment(url))
    assert "4 of 4 meters are not there" in done.stderr


def test_live_mode_is_refused_before_anything_is_sent() -> None:
    done = meterprint("verify", "api_gateway", environment=environment("https://live.dodopayments.com"))
    assert done.returncode == 1
    assert "https://live.dodopayments.com may bill it: use a test mode" in done.stderr
    assert "`--yes-live`" in done.stderr


def test_a_wrong_key_is_named() -> None:
    class Refusing:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b'{"code": "UNAUTHORIZED", "message": "no"}'})

    with Server(Refusing()) as server:
        done = meterprint("apply", "api_gateway", environment=environment(server.url))
    assert done.returncode == 1
    assert "401 UNAUTHORIZED: no: check METERING_API_KEY" in done.stderr


# What the page says besides


def test_the_month_in_bash_costs_what_it_must_and_the_clock_goes_on(api: Server) -> None:
    script = ["bash", str(ROOT / "snippets" / "verify_bill" / "month.sh")]
    for _ in range(2):  # the second time, every event is known
        done = subprocess.run(
            script, check=False, env={**CLEAN, **environment(api.url)}, capture_output=True, text=True
        )
        assert (done.stderr, done.stdout) == ("", "31 - 10 free = 21 x 50 cents = 10.50 USD\n")
    with MeteringClient(api.url, LOCAL_KEY) as client:
        assert abs(client.now() - datetime.now(UTC)) < timedelta(minutes=1)


# The blueprint: by name or by file, and in itself


def test_without_variables_and_without_a_local_api_both_are_named() -> None:
    with Server(create_app(MemoryStore())) as server:
        done = meterprint("apply", "api_gateway", environment={"METERING_API_URL": server.url})
    assert done.returncode == 1
    assert "METERING_API_KEY not set" in done.stderr
    assert "meterprint up" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BLUEPRINT = 7\n", "mine.py defines no BLUEPRINT: write `BLUEPRINT = Blueprint(...)`"),
        ("from meterprint import Nonsense\n", "mine.py cannot be loaded: ImportError: cannot import name 'Nonsense'"),
        ("BLUEPRINT = (\n", "mine.py cannot be loaded: SyntaxError: '(' was never closed"),
    ],
)
def test_a_file_that_defines_no_blueprint_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = meterprint("verify", "mine.py", cwd=tmp_path, environment=environment("http://127.0.0.1:9"))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_is_answered_with_the_right_one() -> None:
    assert "did you mean api_gateway?" in meterprint("apply", "api-gateway").stderr
    assert f"there are {', '.join(BLUEPRINTS)}" in meterprint("verify", "zzz").stderr


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"invoice_total": 570}, "invoice_total says 570, the prices make 569 of its quantities"),
        ({"quantities": {**BLUEPRINT.quantities, "API requests": Decimal(1)}}, "quantities says 1 of 'API requests'"),
        ({"quantities": {**BLUEPRINT.quantities, "Nobody": Decimal(1)}}, "'Nobody' is none of its meters"),
        ({"prices": (*BLUEPRINT.prices, Price("Nothing", Decimal(0)))}, "'Nothing' is none of its meters"),
        ({"samples": ()}, "there are no samples"),
        ({"samples": (*BLUEPRINT.samples, Sample("api.request", {}))}, "a sample of api.request is none of its events"),
        ({"meters": (*BLUEPRINT.meters, replace(API_REQUESTS, name="All"))}, "quantities says nothing of 'All'"),
    ],
)
def test_a_definition_that_disagrees_with_itself_is_refused_before_anything_is_sent(change: Any, fault: str) -> None:
    changed = replace(BLUEPRINT, **change)
    assert any(fault in found for found in faults(changed)), faults(changed)
    with client_of(create_app(MemoryStore())) as client, pytest.raises(ConfigurationError, match="disagrees with"):
        verify(client, changed, "cus_ada", is_local=True)


def test_every_kind_of_meter_is_read_the_same_from_events_as_from_the_local_api() -> None:
    kind = EventType("job.run", "Once a job.", (Field("seconds", "number", "How long.", 1.5, "seconds"),))
    numbers = [kind.sample(seconds=seconds) for seconds in (2.5, 40.25, 0.1)]
    rules: dict[str, Aggregation] = {
        "count": Aggregation("count"),
        "sum": Aggregation("sum", "seconds"),
        "max": Aggregation("max", "seconds"),
        "last": Aggregation("last", "seconds"),
    }
    long = Filter("and", (Condition("seconds", "greater_than", 0),))
    blueprint = Blueprint(
        slug="jobs",
        title="Jobs",
        summary="Bill jobs.",
        events=(kind,),
        meters=tuple(Meter(name, kind.name, rule, "x", filter=long) for name, rule in rules.items()),
        prices=(Price("sum", Decimal("0.5")),),
        samples=tuple(Sample(kind.name, number, times=50) for number in numbers),
        quantities=dict(zip(rules, map(Decimal, ("150", "2142.5", "40.25", "0.1")), strict=True)),
        invoice_total=1071,
    )
    for app, is_local in ((create_app(MemoryStore()), True), (Hosted(clock=Watch()), False)):
        with client_of(app) as client:
            client.ensure_meters(blueprint.meters)
            assert verify(client, blueprint, "cus_ada", is_local=is_local).is_right


def test_a_batch_that_is_too_large_is_sent_in_halves() -> None:
    kind = EventType("note", "Once.", tuple(Field(f"text_{n}", "string", "Text.", "x" * 500) for n in range(20)))
    blueprint = Blueprint(
        slug="notes",
        title="Notes",
        summary="Bill notes.",
        events=(kind,),
        meters=(Meter("Notes", kind.name, Aggregation("count"), "note"),),
        prices=(Price("Notes", Decimal(1)),),
        samples=(Sample(kind.name, kind.sample(), times=900),),  # 9 MB
        quantities={"Notes": Decimal(900)},
        invoice_total=900,
    )
    with client_of(create_app(MemoryStore())) as client:
        client.ensure_meters(blueprint.meters)
        assert verify(client, blueprint, "cus_ada", is_local=True).is_right


def test_an_event_that_the_api_refuses_is_an_error_of_the_api() -> None:
    def drop_ids(events: list[Any]) -> list[Any]:
        return [{**event, "event_id": ""} for event in events]

    with pytest.raises(APIError, match="/events/0/event_id"):
        verdict_of(Broken(events=drop_ids), is_local=True)
