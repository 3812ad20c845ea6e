"""LiteLLM by its own callback: each answer once, for whom it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import litellm
import openai
import pytest
from litellm.llms.custom_httpx.http_handler import HTTPHandler

from llm_bench import Bench, buckets, serving, working
from llm_shapes import LONG, SKY, TALK
from meterprint import Event
from meterprint.blueprints.llm import LLMMeter
from meterprint.blueprints.llm.litellm import LiteLLMCallback

pytestmark = [  # within LiteLLM
    pytest.mark.filterwarnings("ignore:Item.* using the `ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CUSTOMER: ContextVar[str] = ContextVar("customer")
COMPLETE: Any = litellm.completion  # its type leaves open whether it is a stream, or to be awaited
THOUGHT = (105, 1280, 0, 14, 64)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def bench(url: str) -> Iterator[Bench]:
    token = CUSTOMER.set("cus_ada")
    with working(url) as bench:
        bench.meter = LLMMeter(bench.recorder, customer_id=CUSTOMER, metadata={"feature": "search"})
        yield bench
    CUSTOMER.reset(token)


def soon(bench: Bench, number: int = 1) -> list[Event]:
    """What is recorded, once LiteLLM's own thread has told of so many answers."""
    until = time.monotonic() + 5
    while len(bench.recorded()) < number and time.monotonic() < until:
        time.sleep(0.01)
    events = bench.recorded()
    assert len(events) == number
    return events


def check(event: Event, provider: str, expected: Any = THOUGHT) -> None:
    assert buckets(event) == expected
    assert (event.customer_id, event.metadata["feature"]) == ("cus_ada", "search")
    assert (event.metadata["provider"], event.metadata["estimated"]) == (provider, False)


@pytest.fixture
def lite(bench: Bench) -> Iterator[dict[str, Any]]:
    """What each call of LiteLLM takes; the client, since LiteLLM does not close its own."""
    litellm.callbacks = [LiteLLMCallback(bench.meter)]
    address = f"{bench.url}/openai/v1"
    with openai.OpenAI(api_key="k", base_url=address, max_retries=0) as client:
        yield {"model": "openai/gpt-5.4-mini", "messages": TALK, "client": client}
    callbacks: Any = litellm.logging_callback_manager
    callbacks._reset_all_callbacks()


def test_litellm_is_billed_in_one_piece(bench: Bench, lite: Any) -> None:
    answer = COMPLETE(**lite)
    (event,) = soon(bench)
    check(event, "openai")
    assert event.event_id == Event.id_for("openai", answer.id)


def test_litellm_is_billed_with_asyncio(bench: Bench, lite: Any) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=lite["client"].base_url) as client:
            await litellm.acompletion(**{**lite, "client": client})
        CUSTOMER.set("cus_nobody")
        await asyncio.sleep(0.3)  # it tells of the answer in a task of its own

    asyncio.run(main())
    check(soon(bench)[0], "openai")


def test_a_stream_of_litellm_has_the_providers_counts_if_they_are_asked_for(bench: Bench, lite: Any) -> None:
    list(COMPLETE(**lite, stream=True, stream_options={"include_usage": True}))
    check(soon(bench)[0], "openai")


def test_a_stream_elsewhere_that_did_not_ask_is_marked(bench: Bench, lite: Any) -> None:
    list(COMPLETE(**lite, stream=True))
    (event,) = soon(bench)
    assert event.metadata["estimated"] is True


@pytest.mark.parametrize(
    ("address", "provider", "estimated"),
    [
        ("https://api.openai.com/v1/", "openai", False),  # where LiteLLM asks of itself
        ("http://localhost:8000/v1/", "openai", True),
        ("https://api.anthropic.com", "anthropic", False),
    ],
)
def test_the_address_tells_whether_the_provider_counted(
    address: str, provider: str, estimated: bool, bench: Bench
) -> None:
    answer = SimpleNamespace(id="chatcmpl-12345678", model="m", usage={"prompt_tokens": 1, "completion_tokens": 2})
    told = {"stream": True, "custom_llm_provider": provider, "litellm_params": {"api_base": address}}
    LiteLLMCallback(bench.meter).log_success_event(told, answer, None, None)
    assert bench.only().metadata["estimated"] is estimated


def test_what_litellms_cache_answers_is_not_billed(bench: Bench) -> None:
    LiteLLMCallback(bench.meter).log_success_event({"cache_hit": True}, SimpleNamespace(), None, None)
    assert bench.recorded() == []


def test_anthropic_by_litellm_has_its_caches_apart(bench: Bench, lite: Any) -> None:
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "system", "content": [marked]}, TALK[3]]
    claude = {"model": "anthropic/claude-sonnet-5-5", "api_base": f"{bench.url}/anthropic", "api_key": "k"}
    http: Any = HTTPHandler()
    list(COMPLETE(**{**lite, **claude, "messages": messages, "client": http}, stream=True))
    http.close()
    check(soon(bench)[0], "anthropic", (5, 0, 1375, 14, 0))


def test_embeddings_by_litellm(bench: Bench, lite: Any) -> None:
    litellm.embedding(model="openai/text-embedding-3-small", input=[SKY], client=lite["client"])
    (event,) = soon(bench)
    check(event, "openai", (5, 0, 0, 0, 0))
    assert event.metadata["operation"] == "embedding"


def test_a_call_of_litellm_that_fails_bills_nothing(bench: Bench, lite: Any) -> None:
    with pytest.raises(litellm.exceptions.InternalServerError):
        COMPLETE(**lite, extra_headers={"X-Standin": "error=500"}, max_retries=0)
    time.sleep(0.2)
    assert bench.recorded() == []
