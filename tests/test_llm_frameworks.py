"""LangChain and Pydantic AI by their own callbacks: each answer once, for whom it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from llm_bench import Bench, buckets, serving, working
from llm_shapes import LONG, SKY, TALK
from meterprint import Event
from meterprint.blueprints.llm import LLMMeter
from meterprint.blueprints.llm.langchain import LangChainCallback
from meterprint.blueprints.llm.pydantic_ai import PydanticAICapability

CUSTOMER: ContextVar[str] = ContextVar("customer")
RUNNER = asyncio.Runner()
THOUGHT = (105, 1280, 0, 14, 64)
TALKED: Any = [(message["role"], message["content"]) for message in TALK]


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


def run(call: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in the one loop that the frameworks' cached clients live in."""
    return RUNNER.run(call, context=copy_context())


def check(event: Event, provider: str, expected: Any = THOUGHT, *, estimated: bool = False) -> None:
    assert buckets(event) == expected
    assert (event.customer_id, event.metadata["feature"]) == ("cus_ada", "search")
    assert (event.metadata["provider"], event.metadata["estimated"]) == (provider, estimated)


# LangChain.


@pytest.fixture
def clients(bench: Bench) -> Iterator[dict[str, Any]]:
    """HTTP clients, since the frameworks do not close their own."""
    made: dict[str, Any] = {"http_client": httpx2.Client(), "http_async_client": httpx2.AsyncClient()}
    yield made
    made["http_client"].close()
    run(made["http_async_client"].aclose())


@pytest.fixture
def chat(bench: Bench, clients: dict[str, Any]) -> Callable[..., ChatOpenAI]:
    """Makes a model that is metered."""
    metered = {"callbacks": [LangChainCallback(bench.meter)], **clients}
    here: dict[str, Any] = {"api_key": SecretStr("k"), "base_url": f"{bench.url}/openai/v1"}
    return lambda **options: ChatOpenAI(model="gpt-5.4-mini", **here, **metered, **options)


@pytest.fixture
def gpt(bench: Bench, clients: dict[str, Any]) -> OpenAIChatModel:
    """A model of Pydantic AI."""
    client = openai.AsyncOpenAI(
        api_key="k", base_url=f"{bench.url}/openai/v1", http_client=clients["http_async_client"]
    )
    return OpenAIChatModel("gpt-5.4-mini", provider=OpenAIProvider(openai_client=client))


ASKS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda model: model.invoke(TALKED),
    "stream": lambda model: list(model.stream(TALKED)),
    "ainvoke": lambda model: run(model.ainvoke(TALKED)),
    "batch": lambda model: model.batch([TALKED]),
}


@pytest.mark.parametrize("way", ASKS)
def test_langchain_is_billed_once(way: str, bench: Bench, chat: Any) -> None:
    ASKS[way](chat(stream_usage=True))
    check(bench.only(), "openai")


def test_langchain_streams_with_asyncio_are_billed_for_the_caller_at_the_start(bench: Bench, chat: Any) -> None:
    async def main() -> None:
        async for _ in chat(stream_usage=True).astream(TALKED):
            CUSTOMER.set("cus_nobody")

    run(main())
    check(bench.only(), "openai")


def test_two_choices_of_langchain_are_one_answer(bench: Bench, chat: Any) -> None:
    chat(n=2).generate([[HumanMessage(SKY)]])
    check(bench.only(), "openai", (5, 0, 0, 29, 128))


def test_an_answer_has_the_same_id_by_langchain_and_by_the_wrapped_client(bench: Bench, chat: Any) -> None:
    answer = chat().invoke(TALKED)
    assert bench.only().event_id == Event.id_for("openai", answer.response_metadata["id"])


def test_what_langchains_cache_answers_is_billed_once(bench: Bench, chat: Any) -> None:
    model = chat(cache=InMemoryCache())
    assert model.invoke(TALKED).content == model.invoke(TALKED).content
    check(bench.only(), "openai")


def test_a_langchain_stream_that_is_broken_off_bills_what_was_received(bench: Bench, chat: Any) -> None:
    stream = chat().stream(TALKED)
    text = ""
    for chunk in stream:
        text += str(chunk.content)
        if len(text) > 10:
            break
    stream.close()
    check(bench.only(), "openai", (1385, 0, 0, -(-len(text) // 4), 0), estimated=True)


def test_a_call_of_langchain_that_fails_bills_nothing(bench: Bench, chat: Any) -> None:
    failing = chat(max_retries=0, default_headers={"X-Standin": "error=500"})
    with pytest.raises(Exception, match="500"):
        failing.invoke(TALKED)
    assert bench.recorded() == []


def test_anthropic_by_langchain_has_its_caches_apart(bench: Bench) -> None:
    model: Any = ChatAnthropic(
        model_name="claude-sonnet-5-5",
        api_key=SecretStr("k"),
        base_url=f"{bench.url}/anthropic",
        callbacks=[LangChainCallback(bench.meter)],
        timeout=None,
        stop=None,
    )
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    model.invoke([SystemMessage([marked]), HumanMessage(SKY)])
    check(bench.only(), "anthropic", (5, 0, 1375, 14, 0))


# Pydantic AI.


def test_an_agent_of_pydantic_ai_is_billed(bench: Bench, gpt: Any) -> None:
    agent = Agent(gpt, instructions=LONG, capabilities=[PydanticAICapability(bench.meter)])
    result = run(agent.run(SKY))
    event = bench.only()
    check(event, "openai", (1380, 0, 0, 14, 64))
    assert event.event_id == Event.id_for("openai", result.all_messages()[-1].provider_response_id or "")


def test_every_step_of_an_agent_is_billed(bench: Bench, gpt: Any) -> None:
    agent = Agent(gpt, capabilities=[PydanticAICapability(bench.meter)])

    @agent.tool_plain
    def weather(city: str) -> str:
        return f"sunny in {city}"

    run(agent.run(SKY))
    first, second = bench.recorded()
    assert first.event_id != second.event_id
    assert int(second.metadata["input_tokens"]) > int(first.metadata["input_tokens"])


def test_a_stream_of_an_agent_is_billed(bench: Bench, gpt: Any) -> None:
    async def main() -> None:
        agent = Agent(gpt, instructions=LONG, capabilities=[PydanticAICapability(bench.meter)])
        async with agent.run_stream(SKY) as stream:
            await stream.get_output()

    run(main())
    check(bench.only(), "openai", (1380, 0, 0, 14, 64))


def test_anthropic_by_pydantic_ai(bench: Bench) -> None:
    client = anthropic.AsyncAnthropic(api_key="k", base_url=f"{bench.url}/anthropic")
    provider = AnthropicProvider(anthropic_client=client)
    agent = Agent(
        AnthropicModel("claude-sonnet-5-5", provider=provider), capabilities=[PydanticAICapability(bench.meter)]
    )
    run(agent.run(SKY))
    run(client.close())
    check(bench.only(), "anthropic", (5, 0, 0, 14, 0))


def test_an_agent_with_a_wrapped_client_is_billed_to_the_byte(bench: Bench, gpt: Any) -> None:
    client = bench.meter.wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{bench.url}/openai/v1"))

    async def main() -> None:
        agent = Agent(OpenAIChatModel("gpt-5.4-mini", provider=OpenAIProvider(openai_client=client)), instructions=LONG)
        async with agent.run_stream(SKY) as stream:
            async for _ in stream.stream_text():
                break
        await client.close()

    run(main())
    assert bench.only().metadata["provider"] == "openai"
