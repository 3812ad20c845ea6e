"""LLMMeter.wrap: every way of asking is billed once and right, to whom it must be, and none is touched."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import httpx
import httpx2
import openai
import pytest

from llm_bench import Bench, asked, buckets, serving, working
from llm_shapes import CHAT, CLIENTS, FLASH, SAID, SHAPES, STREAM, closed, shown, used_up
from meterprint import ConfigurationError, Event, ValidationError
from meterprint.blueprints.llm import LLMMeter

SDKS = ["openai", "anthropic", "gemini", "groq", "mistral"]
FIRST = {shape.client: shape for shape in reversed(SHAPES)}
each_sdk = pytest.mark.parametrize("name", SDKS)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def bench(url: str) -> Iterator[Bench]:
    with working(url) as bench:
        yield bench


def ids_in(result: Any) -> set[str]:
    """The ids that an answer, or its chunks, have at the top."""
    answers = result if isinstance(result, list) else [result]
    inner = [getattr(answer, name, None) for answer in answers for name in ("response", "message", "chunk", "data")]
    found = [getattr(answer, name, None) for answer in [*answers, *inner] for name in ("id", "response_id")]
    return {text for text in found if isinstance(text, str)}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_way_of_asking_is_billed_once_and_right_and_gives_the_same(
    shape: Any, is_async: bool, bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    record_property("llm_call", [shape.client, shape.name, "async" if is_async else "sync", shape.buckets])
    of = CLIENTS[shape.client]
    suffix = "_async" if is_async else ""

    async def main() -> tuple[Any, Any]:
        client = (of.asynchronous if is_async else of.sync)(bench.url)
        wrapped = bench.meter.wrap(client, **of.options)
        sides = [each.aio if is_async and shape.client == "gemini" else each for each in (client, wrapped)]
        expected = await used_up(shape.ask(sides[0], suffix), shape.how)
        assert bench.recorded() == []
        got = await used_up(shape.ask(sides[1], suffix), shape.how)
        await closed(wrapped)
        await closed(client)
        return expected, got

    expected, got = asyncio.run(main())
    assert shown(got) == shown(expected)
    if shape.buckets is None:
        assert bench.recorded() == []
        return
    event = bench.only()
    assert buckets(event) == shape.buckets
    assert event.customer_id == "cus_ada"
    assert (event.metadata["provider"], event.metadata["operation"]) == (of.provider, shape.operation)
    assert event.metadata["estimated"] is False
    ids = ids_in(got)
    assert bool(ids) == shape.has_id
    assert not ids or event.event_id in {Event.id_for(of.provider, response_id) for response_id in ids}


# The client.


@pytest.mark.parametrize("name", CLIENTS)
def test_the_wrapped_client_has_the_type_of_the_original(name: str, bench: Bench) -> None:
    for make in (CLIENTS[name].sync, CLIENTS[name].asynchronous):
        client = make(bench.url)
        wrapped = bench.meter.wrap(client)
        assert isinstance(wrapped, type(client))
        assert type(wrapped).__qualname__ == type(client).__qualname__
        assert wrapped is not client


@each_sdk
def test_a_client_that_nobody_else_holds_goes_on_working(name: str, bench: Bench) -> None:
    wrapped = bench.meter.wrap(CLIENTS[name].sync(bench.url))
    gc.collect()
    asked(FIRST[name], wrapped)
    asyncio.run(closed(wrapped))
    assert buckets(bench.only()) == FIRST[name].buckets


@each_sdk
def test_the_original_goes_on_working_when_the_wrapped_client_is_gone(name: str, bench: Bench) -> None:
    client = bench.make(name)
    asked(FIRST[name], bench.meter.wrap(client))
    gc.collect()
    asked(FIRST[name], client)
    assert len(bench.recorded()) == 1


def test_closing_the_wrapped_client_closes_the_connections(bench: Bench) -> None:
    client = bench.make("openai")
    with bench.meter.wrap(client) as wrapped:
        wrapped.models.retrieve("gpt-4o")
        assert not client.is_closed()
    assert client.is_closed()
    with pytest.raises(RuntimeError, match="the client has been closed"):
        wrapped.chat.completions.create(**CHAT)


def test_what_was_used_of_a_client_before_it_was_wrapped_is_not_metered(bench: Bench) -> None:
    client = bench.make("mistral")
    asked(FIRST["mistral"], client)
    wrapped = bench.meter.wrap(client)
    asked(FIRST["mistral"], client)
    assert bench.recorded() == []
    asked(FIRST["mistral"], wrapped)
    assert len(bench.recorded()) == 1


@each_sdk
def test_wrapping_again_replaces_and_bills_once(name: str, bench: Bench) -> None:
    once = bench.wrapped(name, metadata={"feature": "search"})
    asked(FIRST[name], bench.meter.wrap(once, customer_id="cus_bob"))
    event = bench.only()
    assert (event.customer_id, "feature" in event.metadata) == ("cus_bob", False)
    asked(FIRST[name], once)
    assert [event.customer_id for event in bench.recorded()] == ["cus_bob", "cus_ada"]


def test_the_asynchronous_side_of_a_gemini_client_can_be_wrapped_alone(bench: Bench) -> None:
    async def main() -> None:
        aio = bench.meter.wrap(CLIENTS["gemini"].sync(bench.url).aio)
        gc.collect()
        await aio.models.generate_content(**FLASH)
        await aio.aclose()

    asyncio.run(main())
    assert bench.only().metadata["provider"] == "gemini"


def test_an_openai_client_with_an_httpx_client_of_the_older_kind_is_metered(bench: Bench) -> None:
    with httpx.Client() as http:
        older: Any = http
        client = openai.OpenAI(api_key="k", base_url=f"{bench.url}/openai/v1", http_client=older)
        list(bench.meter.wrap(client).chat.completions.create(**STREAM))
    assert bench.only().metadata["estimated"] is False


def test_an_own_http_client_keeps_its_headers_cookies_and_hooks(bench: Bench) -> None:
    seen: list[Any] = []
    hooks: Any = {"request": [seen.append], "response": [lambda response: response.read()]}
    with httpx2.Client(headers={"x-team": "search"}, cookies={"a": "b"}, event_hooks=hooks) as http:
        client = openai.OpenAI(api_key="k", base_url=f"{bench.url}/openai/v1", http_client=http)
        chunks = list(bench.meter.wrap(client).chat.completions.create(**STREAM))
    (request,) = seen
    assert (request.headers["x-team"], request.headers["cookie"]) == ("search", "a=b")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    assert bench.only().metadata["estimated"] is False  # although the hook has read the stream


@pytest.mark.parametrize(
    ("client", "named"),
    [
        (None, "an object of builtins.NoneType"),
        ("sk-key", "an object of builtins.str"),
        (openai, "an object of builtins.module"),
        (openai.OpenAI, "the class openai.OpenAI"),
        (httpx2.Client(), "an object of httpx2.Client"),
        (CHAT, "an object of builtins.dict"),
    ],
)
def test_what_is_no_client_is_refused_and_the_error_says_what_is(client: Any, named: str, bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="cannot be wrapped: give an instance of OpenAI, Anthropic") as caught:
        bench.meter.wrap(client)
    assert str(caught.value).startswith(named)


def test_the_blueprint_imports_no_sdk_and_no_other_http_client() -> None:
    code = "import sys, meterprint.blueprints.llm; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx" in found
    assert not {"openai", "anthropic", "google", "groq", "mistralai", "httpx2", "pydantic"} & set(found)


# Who pays, and what else is said.


def test_the_customer_is_that_of_the_moment_of_the_call(bench: Bench) -> None:
    current: ContextVar[str] = ContextVar("current")

    async def main() -> None:
        client = CLIENTS["openai"].asynchronous(bench.url)
        wrapped = LLMMeter(bench.recorder).wrap(client, customer_id=current)

        async def ask(name: str) -> None:
            current.set(name)
            stream = await wrapped.chat.completions.create(**STREAM)
            current.set("cus_nobody")
            async for _ in stream:
                pass

        await asyncio.gather(*(ask(f"cus_{number}") for number in range(5)))
        await wrapped.close()

    asyncio.run(main())
    assert {event.customer_id for event in bench.recorded()} == {f"cus_{number}" for number in range(5)}


def test_the_customer_may_be_a_callable(bench: Bench) -> None:
    names = iter(["cus_ada", "cus_bob"])
    client = bench.wrapped("openai", customer_id=lambda: next(names))
    for _ in range(2):
        client.chat.completions.create(**CHAT)
    assert [event.customer_id for event in bench.recorded()] == ["cus_ada", "cus_bob"]


def fails() -> Any:
    raise KeyError("claims")


@pytest.mark.parametrize("customer", [ContextVar("nobody"), lambda: None, lambda: "", fails])
def test_without_a_customer_the_call_goes_on_and_its_event_is_a_dead_letter(
    customer: Any, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with working(url, strict=False) as bench:
        answer = bench.wrapped("openai", customer_id=customer).chat.completions.create(**CHAT)
        assert bench.recorded() == []
    assert answer.choices[0].message.content == SAID
    (letter,) = bench.recorder.dead_letters
    assert letter.event["metadata"]["output_tokens"] == 14
    assert f"openai response {answer.id}: no customer is known: its event is a dead letter" in caplog.text


def test_metadata_is_added_and_replaces_nothing_that_is_measured(bench: Bench) -> None:
    meter = LLMMeter(bench.recorder, customer_id="cus_ada", metadata={"plan": "pro", "model": "free"})
    client = meter.wrap(bench.make("openai"), metadata={"feature": "search", "estimated": True, "total_tokens": 0})
    client.chat.completions.create(**CHAT)
    metadata = bench.only().metadata
    assert (metadata["plan"], metadata["feature"]) == ("pro", "search")
    assert (metadata["model"], metadata["total_tokens"], metadata["estimated"]) == ("gpt-5.4-mini", 1463, False)


def test_metadata_may_be_asked_for_at_each_call(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    features = iter(["search", "chat"])
    meter = LLMMeter(bench.recorder, customer_id="cus_ada", metadata={"plan": "pro"})
    client = meter.wrap(bench.make("openai"), metadata=lambda: {"feature": next(features)})
    for _ in range(3):
        client.chat.completions.create(**CHAT)  # the third finds no feature
    assert [event.metadata.get("feature") for event in bench.recorded()] == ["search", "chat", None]
    assert "the metadata of a call could not be told" in caplog.text


@pytest.mark.parametrize("customer", ["", "  ", 7, b"cus_ada"])
def test_a_customer_that_cannot_be_is_refused_at_once(customer: Any, bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="give a non-empty string, a callable without arguments or a Cont"):
        LLMMeter(bench.recorder, customer_id=customer)
    with pytest.raises(ConfigurationError, match="customer_id="):
        bench.wrapped("openai", customer_id=customer)


def test_a_client_without_a_customer_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="no customer_id: give it to LLMMeter or to wrap"):
        LLMMeter(bench.recorder).wrap(bench.make("openai"))


@pytest.mark.parametrize(
    "metadata", [{"tags": ["a"]}, {"text": "x" * 501}, {"": 1}, {f"key_{number}": 1 for number in range(41)}]
)
def test_metadata_that_no_event_may_have_is_refused_at_once(metadata: Any, bench: Bench) -> None:
    with pytest.raises(ValidationError, match="/metadata"):
        bench.wrapped("openai", metadata=metadata)


# By hand.


def test_an_answer_that_came_by_other_ways_can_be_recorded(bench: Bench) -> None:
    answer = bench.make("openai").chat.completions.create(**CHAT)
    bench.meter.record(answer, metadata={"feature": "search"})
    bench.meter.record(answer.to_json(), provider="azure", customer_id="cus_bob")
    ours, others = bench.recorded()
    assert ours.event_id == Event.id_for("openai", answer.id)
    assert others.event_id == Event.id_for("azure", answer.id)
    assert (ours.customer_id, others.customer_id) == ("cus_ada", "cus_bob")
    assert ours.metadata["feature"] == "search"
    assert buckets(ours) == buckets(others) == (105, 1280, 0, 14, 64)


def test_the_same_answer_recorded_twice_is_billed_once(bench: Bench) -> None:
    answer = bench.wrapped("openai").chat.completions.create(**CHAT)
    bench.meter.record(answer)
    assert len(bench.recorded()) == 1


def test_recording_by_hand_never_raises(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.meter.record(None)
    bench.meter.record({"usage": {"prompt_tokens": 1}}, metadata={"tags": ["a"]})  # type: ignore[dict-item]
    assert bench.recorded() == []
    assert caplog.text.count("an answer was not metered") == 2
