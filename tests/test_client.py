"""The clients: what they send, when they try again, and what they raise."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from meterprint import (
    Aggregation,
    APIError,
    AsyncMeteringClient,
    ConfigurationError,
    Event,
    Meter,
    MeteringClient,
    UnreachableError,
    ValidationError,
)
from meterprint.local.app import create_app
from meterprint.local.store import MemoryStore
from meterprint.testing import InProcess

METER = Meter("Requests", "api.request", Aggregation("count"), "request")

Answer = httpx.Response | httpx.RequestError


def event(number: int = 0, **values: object) -> Event:
    return Event(event_id=f"e{number}", customer_id="cus_ada", event_name="api.request", **values)  # type: ignore[arg-type]


class Scripted:
    """A transport that gives one answer after the other, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.RequestError):
            raise answer
        return answer

    def client(self, retries: int = 3) -> MeteringClient:
        transport = httpx.MockTransport(self)
        return MeteringClient("http://api.test", "k", retries=retries, transport=transport, sleep=self.pauses.append)

    def ingest_async(self, retries: int = 3) -> int:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        async def main() -> int:
            transport = httpx.MockTransport(self)
            client = AsyncMeteringClient("http://api.test", "k", retries=retries, transport=transport, sleep=pause)
            async with client:
                return (await client.ingest([event()])).ingested_count

        return asyncio.run(main())

    def ingest_sync(self, retries: int = 3) -> int:
        with self.client(retries) as client:
            return client.ingest([event()]).ingested_count


Ingest = Callable[[Scripted], int]
both = pytest.mark.parametrize("ingest", [Scripted.ingest_sync, Scripted.ingest_async], ids=["sync", "async"])


def stored() -> httpx.Response:
    return httpx.Response(200, json={"ingested_count": 1})


@pytest.fixture
def client() -> Iterator[MeteringClient]:
    with MeteringClient("http://api.test", "k", transport=InProcess(create_app(MemoryStore()))) as client:
        yield client


@both
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_of_the_moment_is_tried_again_with_the_same_body(ingest: Ingest, status: int) -> None:
    api = Scripted(httpx.Response(status), httpx.ConnectError("refused"), stored())
    assert ingest(api) == 1
    first, *others = [request.content for request in api.requests]
    assert others == [first, first]
    assert json.loads(first)["events"][0]["event_id"] == "e0"


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_an_answer_that_will_not_change_is_raised_at_once(ingest: Ingest, status: int) -> None:
    api = Scripted(httpx.Response(status, json={"code": "SOME_CODE", "message": "what is wrong"}))
    with pytest.raises(APIError, match=f"{status} SOME_CODE: what is wrong") as caught:
        ingest(api)
    assert (caught.value.status, caught.value.code) == (status, "SOME_CODE")
    assert len(api.requests) == 1


@both
def test_the_pauses_double_at_most_and_are_drawn_from_zero_up(ingest: Ingest) -> None:
    api = Scripted(*[httpx.Response(503)] * 3, stored())
    ingest(api)
    assert len(api.pauses) == 3
    assert all(0 <= pause <= bound for pause, bound in zip(api.pauses, (0.5, 1, 2), strict=True))


@both
def test_retry_after_in_seconds_is_obeyed(ingest: Ingest) -> None:
    api = Scripted(httpx.Response(429, headers={"Retry-After": "7"}), stored())
    ingest(api)
    assert api.pauses == [7.0]


def test_retry_after_as_a_date_is_obeyed() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    api = Scripted(httpx.Response(429, headers={"Retry-After": date}), stored())
    api.ingest_sync()
    assert 15 < api.pauses[0] <= 20


def test_retry_after_that_makes_no_sense_leaves_the_usual_pause() -> None:
    api = Scripted(httpx.Response(429, headers={"Retry-After": "soon"}), stored())
    api.ingest_sync()
    assert 0 <= api.pauses[0] <= 0.5


def test_a_retry_after_that_is_too_long_is_raised_instead_of_waited_for() -> None:
    api = Scripted(httpx.Response(429, headers={"Retry-After": "3600"}, json={"code": "TOO_MANY_REQUESTS"}))
    with pytest.raises(APIError, match="TOO_MANY_REQUESTS"):
        api.ingest_sync()
    assert api.pauses == []


def test_how_long_an_answer_may_ask_to_wait_can_be_set() -> None:
    script = Scripted(httpx.Response(429, headers={"Retry-After": "60"}), httpx.Response(200, json={"items": []}))
    transport = httpx.MockTransport(script)
    client = MeteringClient("http://api.test", "k", longest_pause=60, transport=transport, sleep=script.pauses.append)
    assert list(client.events()) == []
    assert script.pauses == [60]


@both
def test_when_no_try_is_left_the_last_failure_is_raised(ingest: Ingest) -> None:
    api = Scripted(*[httpx.ReadTimeout("too slow")] * 4)
    with pytest.raises(UnreachableError, match=r"no answer from http://api.test \(too slow\)$"):
        ingest(api)
    assert len(api.requests) == 4


def test_an_unreachable_local_api_names_the_command_that_starts_it() -> None:
    with (
        MeteringClient("http://127.0.0.1:1", "k", retries=0) as client,
        pytest.raises(UnreachableError, match="meterprint up"),
    ):
        client.ingest([event()])


def test_an_answer_that_is_no_json_is_named_as_such() -> None:
    api = Scripted(httpx.Response(200, text="<html>a proxy</html>"))
    with pytest.raises(APIError, match="http://api.test does not answer as a metering API"):
        api.ingest_sync()


@pytest.mark.parametrize("body", [{}, [], {"ingested_count": "1"}, "ok"])
def test_an_answer_without_a_count_is_no_success(body: object) -> None:
    with pytest.raises(APIError, match="the answer has no ingested_count"):
        Scripted(httpx.Response(200, json=body)).ingest_sync()


@pytest.mark.parametrize("body", [{"details": "text"}, {"details": ["text"], "message": None}, ["list"], None])
def test_an_error_of_somebody_elses_shape_is_an_api_error_all_the_same(body: object) -> None:
    with pytest.raises(APIError, match="403 UNKNOWN: http://api.test does not answer as a metering API"):
        Scripted(httpx.Response(403, json=body)).ingest_sync()


@both
def test_an_answer_that_cannot_be_decoded_is_tried_again(ingest: Ingest) -> None:
    assert ingest(Scripted(httpx.DecodingError("bad gzip"), stored())) == 1


def test_refused_values_are_named_by_their_pointers() -> None:
    details = [{"pointer": "/events/0/timestamp", "reason": "too old"}]
    api = Scripted(httpx.Response(400, json={"code": "INVALID_TIMESTAMP", "message": "m", "details": details}))
    with pytest.raises(APIError, match="/events/0/timestamp: too old") as caught:
        api.ingest_sync()
    assert caught.value.problems[0].pointer == "/events/0/timestamp"


def test_a_batch_that_breaks_a_limit_is_not_sent() -> None:
    api = Scripted()
    with pytest.raises(ValidationError, match="send between 1 and 1,000"):
        api.client().ingest([])
    with pytest.raises(ValidationError, match="1,001 events: send at most 1,000"):
        api.client().ingest([event(number) for number in range(1001)])
    with pytest.raises(ValidationError, match="not a sequence of Event objects"):
        api.client().ingest([{"event_id": "a"}])  # type: ignore[list-item]
    assert api.requests == []


def test_events_gives_every_page_newest_first_and_each_event_once(client: MeteringClient) -> None:
    start = datetime.now(UTC) - timedelta(minutes=10)
    client.ingest([event(number, timestamp=start + timedelta(milliseconds=number)) for number in range(250)])
    listing = client.events()
    read = [next(listing).event_id]
    # What arrives while the pages are read pushes the others on: none may come twice or be missed.
    client.ingest([event(number, timestamp=start + timedelta(seconds=number)) for number in range(250, 400)])
    read += [found.event_id for found in listing]
    assert read == [f"e{number}" for number in range(249, -1, -1)]


def test_events_that_arrive_late_do_not_show_others_twice(client: MeteringClient) -> None:
    start = datetime.now(UTC) - timedelta(minutes=10)
    client.ingest([event(number, timestamp=start + timedelta(milliseconds=number)) for number in range(150)])
    listing = client.events()
    read = [next(listing).event_id]
    client.ingest([event(number, timestamp=start + timedelta(milliseconds=149)) for number in range(150, 180)])
    read += [found.event_id for found in listing]
    assert len(read) == len(set(read))
    assert {f"e{number}" for number in range(150)} <= set(read)


def test_events_takes_every_filter(client: MeteringClient) -> None:
    now = datetime.now(UTC)
    meter = client.create_meter(METER)
    client.ingest([event(1, timestamp=now - timedelta(minutes=5)), event(2, timestamp=now)])
    client.ingest([Event("other", "cus_bo", "other")])

    def ids(**query: Any) -> list[str]:
        return [found.event_id for found in client.events(**query)]

    assert ids(customer_id="cus_bo") == ["other"]
    assert ids(event_name="api.request") == ["e2", "e1"]
    assert ids(meter_id=meter.id) == ["e2", "e1"]
    assert ids(customer_id="cus_ada", start=now) == ["e2"]
    assert ids(customer_id="cus_ada", end=now) == ["e1"]


def test_one_event_is_found_by_its_id_whatever_characters_it_has(client: MeteringClient) -> None:
    odd = Event("a/b?c=d&é", "cus_ada", "api.request", metadata={"n": 1})
    client.ingest([odd])
    assert client.event("a/b?c=d&é") == odd
    with pytest.raises(APIError, match="404 NOT_FOUND"):
        client.event("nobody's")


def test_duplicates_are_counted_and_not_stored(client: MeteringClient) -> None:
    assert client.ingest([event(1)]).ingested_count == 1
    result = client.ingest([event(1), event(2)])
    assert (result.ingested_count, result.duplicate_count) == (1, 1)


def test_ensure_meters_creates_only_what_is_missing(client: MeteringClient) -> None:
    other = Meter("Bytes", "api.request", Aggregation("sum", "response_bytes"), "byte")
    (first,) = client.ensure_meters([METER])
    again, second = client.ensure_meters([METER, other])
    assert again.id == first.id
    assert [meter.name for meter in client.meters()] == ["Requests", "Bytes"]
    assert second.id


def test_archived_meters_are_listed_apart(client: MeteringClient) -> None:
    meter = client.create_meter(METER)
    client.archive_meter(meter.id or "")
    assert list(client.meters()) == []
    assert [found.id for found in client.meters(archived=True)] == [meter.id]
    client.unarchive_meter(meter.id or "")
    assert [found.id for found in client.meters()] == [meter.id]


def test_more_meters_than_a_page_holds_are_all_listed(client: MeteringClient) -> None:
    names = [f"Meter {number}" for number in range(101)]
    for name in names:
        client.create_meter(Meter(name, "api.request", Aggregation("count"), "request"))
    assert [meter.name for meter in client.meters()] == names


def test_usage_reads_a_meter_in_all_and_for_one_customer(client: MeteringClient) -> None:
    meter = client.create_meter(METER)
    client.ingest([event(1), event(2), Event("e3", "cus_bo", "api.request")])
    assert client.usage(meter.id or "") == 3
    assert client.usage(meter.id or "", customer_id="cus_bo") == 1
    assert client.usage_by_customer(meter.id or "") == {"cus_ada": 2, "cus_bo": 1}


def test_the_time_is_that_of_the_test_clock(client: MeteringClient) -> None:
    client._call("POST", "/local/clock", json={"now": "2030-03-01T00:00:00Z"})
    assert client.now() == datetime(2030, 3, 1, tzinfo=UTC)


def test_where_no_test_clock_is_the_time_is_this_machines_and_another_refusal_is_raised() -> None:
    client = Scripted(httpx.Response(404, json={}), httpx.Response(401, json={})).client()
    assert abs(client.now() - datetime.now(UTC)) < timedelta(seconds=5)
    with pytest.raises(APIError, match="401"):
        client.now()


def test_a_pace_is_asked_before_each_try_of_each_request() -> None:
    script = Scripted(httpx.Response(503), httpx.Response(200, json={"items": []}))
    asked: list[int] = []
    client = MeteringClient(
        "http://api.test",
        "k",
        pace=lambda: asked.append(len(script.requests)),
        transport=httpx.MockTransport(script),
        sleep=script.pauses.append,
    )
    assert list(client.renewed().events()) == []
    assert asked == [0, 1]


def test_the_asynchronous_client_reads_what_the_synchronous_reads(client: MeteringClient) -> None:
    app = create_app(MemoryStore())

    async def main() -> None:
        async with AsyncMeteringClient("http://api.test", "k", transport=httpx.ASGITransport(app)) as api:
            await api.ingest([event(number) for number in range(150)])
            created = await api.create_meter(METER)
            assert len([found async for found in api.events(meter_id=created.id)]) == 150
            for number in range(100):
                await api.create_meter(Meter(f"Meter {number}", "x", Aggregation("count"), "x"))
            assert len([found async for found in api.meters()]) == 101
            assert (await api.event("e7")).event_id == "e7"
            assert await api.usage(created.id or "") == 150
            assert await api.usage(created.id or "", customer_id="cus_bo") == 0
            assert await api.usage_by_customer(created.id or "") == {"cus_ada": 150}
            assert abs(await api.now() - datetime.now(UTC)) < timedelta(seconds=5)
            await api.archive_meter(created.id or "")
            assert [found.id async for found in api.meters(archived=True)] == [created.id]
            await api.unarchive_meter(created.id or "")
            other = Meter("Other", "x", Aggregation("count"), "x")
            first, _ = await api.ensure_meters([METER, other])
            assert first.id == created.id
            assert len([found async for found in api.meters()]) == 102

    asyncio.run(main())


def test_both_clients_offer_the_same() -> None:
    def public(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert public(MeteringClient) - {"close", "is_local"} == public(AsyncMeteringClient) - {"aclose"}


@pytest.mark.parametrize("client_class", [MeteringClient, AsyncMeteringClient])
def test_from_env_names_the_variables_that_are_missing_and_the_command_that_sets_them(
    client_class: type[MeteringClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METERING_API_URL", raising=False)
    monkeypatch.setenv("METERING_API_KEY", "")
    with pytest.raises(ConfigurationError, match="METERING_API_URL and METERING_API_KEY not set.*`meterprint up`"):
        client_class.from_env()
    monkeypatch.setenv("METERING_API_KEY", "k")
    with pytest.raises(ConfigurationError, match="^METERING_API_URL not set"):
        client_class.from_env()


@pytest.mark.parametrize(("url", "key"), [("api.test", "k"), ("http://a", ""), ("http://a", "a\nb"), ("http://a", "å")])
def test_a_url_or_key_that_cannot_work_is_refused_before_anything_is_sent(url: str, key: str) -> None:
    with pytest.raises(ConfigurationError):
        MeteringClient(url, key)


@pytest.mark.parametrize("client_class", [MeteringClient, AsyncMeteringClient])
def test_the_key_shows_in_no_repr(client_class: type[MeteringClient]) -> None:
    shown = repr(client_class("http://api.test", "very-secret"))
    assert "http://api.test" in shown
    assert "very-secret" not in shown
