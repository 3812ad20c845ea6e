"""The stand-in providers: the real SDKs parse what they say, and every number follows from the rules."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import anthropic
import groq
import httpx
import openai
import pytest
from google import genai
from google.genai import types as gemini_types
from mistralai.client import Mistral
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from meterprint.local.server import Server
from meterprint.local.standins import HEADER, standins, tokens

SKY = "Why is the sky blue?"
SAID = f"This is the stand-in's answer to: {SKY}"
ASK: Any = [{"role": "user", "content": SKY}]
LONG = "All work and no play. " * 250  # 5,500 characters, 1,375 tokens
TALK: Any = [
    {"role": "system", "content": LONG},
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Good morning."},
    {"role": "user", "content": SKY},
]
TALKED = tokens(LONG + "Hello!" + "Good morning." + SKY)
WEATHER: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
ARGUMENTS = {"city": "example", "days": 1}
CALL_TOKENS = tokens('weather{"city":"example","days":1}')

Json: TypeAlias = dict[str, Any]


class Planet(BaseModel):
    name: str
    moons: list[str]
    is_gas: bool | None


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(Starlette(routes=[Mount("/standins", routes=standins())])) as server:
        yield f"{server.url}/standins"


@pytest.fixture(scope="module")
def gpt(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=f"{url}/openai/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=f"{url}/anthropic", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gemini(url: str) -> Iterator[genai.Client]:
    with genai.Client(api_key="k", http_options={"base_url": f"{url}/gemini"}) as client:
        yield client


@pytest.fixture(scope="module")
def llama(url: str) -> Iterator[groq.Groq]:
    with groq.Groq(api_key="k", base_url=f"{url}/groq", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def mistral(url: str) -> Iterator[Mistral]:
    with Mistral(api_key="k", server_url=f"{url}/mistral") as client:
        yield client


@pytest.fixture(scope="module")
def raw(url: str) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer k", "x-goog-api-key": "k", "x-api-key": "k", "anthropic-version": "2023-06-01"}
    with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
        yield client


def standin(words: str) -> dict[str, str]:
    return {HEADER: words}


def joined(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


class TestOpenAIChat:
    def test_an_answer_and_its_usage_follow_from_the_request(self, gpt: openai.OpenAI) -> None:
        first, second = (gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK) for _ in range(2))
        assert first.choices[0].message.content == SAID
        assert first.choices[0].finish_reason == "stop"
        assert first.usage
        assert (first.usage.prompt_tokens, first.usage.completion_tokens, first.usage.total_tokens) == (5, 14, 19)
        assert re.fullmatch(r"chatcmpl-[0-9a-f]{29}", first.id)
        assert first.id != second.id
        assert first.choices == second.choices
        assert first.usage == second.usage

    def test_an_asynchronous_client_gets_the_same(self, url: str, gpt: openai.OpenAI) -> None:
        async def ask() -> tuple[Any, str]:
            async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/openai/v1") as client:
                whole = await client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
                stream = await client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True)
                return whole, joined([chunk async for chunk in stream])

        whole, streamed = asyncio.run(ask())
        assert whole.choices == gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK).choices
        assert streamed == SAID

    def test_a_stream_has_usage_only_if_it_was_asked_for_and_then_last_without_a_choice(
        self, gpt: openai.OpenAI
    ) -> None:
        bare = list(gpt.chat.completions.create(model="gpt-4o", messages=ASK, stream=True))
        assert [chunk.usage for chunk in bare] == [None] * len(bare)
        assert all(chunk.choices for chunk in bare)
        *chunks, last = gpt.chat.completions.create(
            model="gpt-4o", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        assert joined(bare) == joined(chunks) == SAID
        assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
        assert last.choices == []
        assert last.usage
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 14)
        assert len({chunk.id for chunk in [*chunks, last]}) == 1
        assert chunks[-1].choices[0].finish_reason == "stop"

    def test_the_stream_helper_ends_with_the_same_completion(self, gpt: openai.OpenAI) -> None:
        options: Any = {"include_usage": True}
        with gpt.chat.completions.stream(model="gpt-4o", messages=ASK, stream_options=options) as stream:
            kinds = {event.type for event in stream}
            done = stream.get_final_completion()
        assert {"chunk", "content.delta", "content.done"} <= kinds
        assert done.choices[0].message.content == SAID
        assert done.usage
        assert done.usage.total_tokens == 19

    def test_several_choices_add_up(self, gpt: openai.OpenAI) -> None:
        done = gpt.chat.completions.create(model="o3", messages=ASK, n=3)
        said = [choice.message.content or "" for choice in done.choices]
        assert said == [SAID, f"{SAID} (2)", f"{SAID} (3)"]
        assert done.usage
        assert done.usage.completion_tokens == sum(map(tokens, said)) + 3 * 64
        chunks = list(gpt.chat.completions.create(model="o3", messages=ASK, n=2, stream=True))
        assert joined(chunk for chunk in chunks if chunk.choices[0].index == 1) == said[1]

    def test_parse_gives_an_object_of_the_schema(self, gpt: openai.OpenAI) -> None:
        done = gpt.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Planet)
        assert done.choices[0].message.parsed == Planet(name="example", moons=["example"], is_gas=True)
        assert done.usage
        assert done.usage.completion_tokens == tokens('{"name": "example", "moons": ["example"], "is_gas": true}')
        mode: Any = {"type": "json_object"}
        loose = gpt.chat.completions.create(model="gpt-4o", messages=ASK, response_format=mode)
        assert json.loads(loose.choices[0].message.content or "") == {"answer": "example"}

    def test_an_example_keeps_to_the_schema_and_ends_where_it_leads_back(self, gpt: openai.OpenAI) -> None:
        node = {
            "type": "object",
            "properties": {
                "name": {"enum": ["root", "leaf"]},
                "born": {"type": "string", "format": "date"},
                "size": {"type": ["null", "number"], "minimum": 2.5},
                "kind": {"const": "tree"},
                "colour": {"type": "string", "default": "green"},
                "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "left": {"$ref": "#/$defs/node"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "parent", "children"],
        }
        schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "node", "schema": schema}}
        done = gpt.chat.completions.create(model="gpt-4o", messages=ASK, response_format=wanted)
        assert json.loads(done.choices[0].message.content or "") == {
            "name": "root",
            "born": "2026-01-31",
            "size": 2.5,
            "kind": "tree",
            "colour": "green",
            "parent": None,
            "children": [],
        }

    def test_a_function_is_called_and_its_result_is_answered(self, gpt: openai.OpenAI) -> None:
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
        done = gpt.chat.completions.create(model="gpt-4o", messages=ASK, tools=tools)
        message: Any = done.choices[0].message
        assert done.choices[0].finish_reason == "tool_calls"
        assert message.content is None
        assert json.loads(message.tool_calls[0].function.arguments) == ARGUMENTS
        assert done.usage
        definition = json.dumps(tools[0], separators=(",", ":"))
        assert done.usage.prompt_tokens == tokens(definition + SKY)
        assert done.usage.completion_tokens == CALL_TOKENS
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Rain."}
        turn: Any = [*ASK, message.model_dump(exclude_none=True), result]
        end = gpt.chat.completions.create(model="gpt-4o", messages=turn, tools=tools)
        assert end.choices[0].message.content == f"{SAID} The tool said: Rain."
        assert end.usage
        assert end.usage.prompt_tokens == tokens(definition + SKY + 'weather{"city":"example","days":1}' + "Rain.")

    def test_a_streamed_call_has_its_arguments_in_pieces(self, gpt: openai.OpenAI) -> None:
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}]
        with gpt.chat.completions.stream(model="gpt-4o", messages=ASK, tools=tools) as stream:
            done = stream.get_final_completion()
        calls = done.choices[0].message.tool_calls
        assert calls
        assert json.loads(calls[0].function.arguments) == ARGUMENTS

    def test_a_call_can_be_forbidden_or_required(self, gpt: openai.OpenAI) -> None:
        tools: Any = [{"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in ("a", "b")]
        required: Any = {"type": "function", "function": {"name": "b"}}
        forbidden = gpt.chat.completions.create(model="gpt-4o", messages=ASK, tools=tools, tool_choice="none")
        chosen: Any = gpt.chat.completions.create(model="gpt-4o", messages=ASK, tools=tools, tool_choice=required)
        assert forbidden.choices[0].message.content == SAID
        assert chosen.choices[0].message.tool_calls[0].function.name == "b"

    def test_a_raw_response_has_the_request_id(self, gpt: openai.OpenAI) -> None:
        response = gpt.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK)
        assert response.headers["x-request-id"].startswith("req_")
        assert response.parse().choices[0].message.content == SAID
        with gpt.chat.completions.with_streaming_response.create(model="gpt-4o", messages=ASK) as streamed:
            assert streamed.parse().choices[0].message.content == SAID

    @pytest.mark.parametrize(
        ("model", "effort", "size"),
        [
            ("gpt-4o", "high", 0),
            ("gpt-5", None, 64),
            ("o3-mini", "none", 0),
            ("openai/o4-mini", "low", 32),
            ("deepseek/deepseek-r1", "high", 128),
            ("local-thinking", "xhigh", 256),
        ],
    )
    def test_the_model_and_the_effort_decide_how_much_is_reasoned(
        self, gpt: openai.OpenAI, model: str, effort: Any, size: int
    ) -> None:
        options: Json = {"reasoning_effort": effort} if effort else {}
        usage: Any = gpt.chat.completions.create(model=model, messages=ASK, **options).usage
        assert usage.completion_tokens_details.reasoning_tokens == size
        assert usage.completion_tokens == 14 + size

    @pytest.mark.parametrize(
        ("model", "messages", "words", "read_and_written"),
        [
            ("gpt-4o", TALK, "", (1280, 0)),
            ("gpt-4o", TALK[:2], "", (0, 0)),
            ("gpt-4o", TALK[:2], "warm", (1280, 0)),
            ("gpt-4o", TALK[:3], "", (0, 0)),
            ("gpt-4o", [{"role": "user", "content": "x" * 4096}], "warm", (1024, 0)),
            ("gpt-4o", [{"role": "user", "content": "x" * 4092}], "warm", (0, 0)),
            ("gpt-5.6-sol", ASK, "", (0, 0)),
            ("gpt-5.6-sol", TALK[:2], "", (0, 1280)),
            ("openai/gpt-5.6-sol", [*TALK, {"role": "user", "content": LONG}], "", (1280, 1408)),
        ],
    )
    def test_what_earlier_turns_have_sent_is_read_from_the_cache_and_newer_models_write_the_rest(
        self, gpt: openai.OpenAI, model: str, messages: Any, words: str, read_and_written: tuple[int, int]
    ) -> None:
        usage: Any = gpt.chat.completions.create(model=model, messages=messages, extra_headers=standin(words)).usage
        details = usage.prompt_tokens_details
        assert (details.cached_tokens, details.cache_write_tokens) == read_and_written
        assert usage.prompt_tokens == tokens("".join(message["content"] for message in messages))

    def test_a_limit_ends_the_text(self, gpt: openai.OpenAI) -> None:
        done = gpt.chat.completions.create(model="gpt-4o", messages=ASK, max_completion_tokens=3)
        assert done.choices[0].message.content == SAID[:12]
        assert done.choices[0].finish_reason == "length"
        assert done.usage
        assert done.usage.completion_tokens == 3

    def test_an_attachment_has_tokens_of_its_own(self, gpt: openai.OpenAI) -> None:
        parts = [{"type": "text", "text": SKY}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
        messages: Any = [{"role": "user", "content": parts}]
        done = gpt.chat.completions.create(model="gpt-4o", messages=messages)
        assert done.choices[0].message.content == SAID
        assert done.usage
        assert done.usage.prompt_tokens == 5 + 85


class TestOpenAIResponses:
    def test_a_response_and_its_usage_follow_from_the_request(self, gpt: openai.OpenAI) -> None:
        done = gpt.responses.create(model="gpt-5", instructions="Be brief.", input=SKY, reasoning={"effort": "low"})
        assert done.output_text == SAID
        assert done.status == "completed"
        assert [item.type for item in done.output] == ["reasoning", "message"]
        usage = done.usage
        assert usage
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (8, 14 + 32, 54)
        assert usage.output_tokens_details.reasoning_tokens == 32
        assert done.id.startswith("resp_")

    def test_earlier_turns_are_read_from_the_cache(self, gpt: openai.OpenAI) -> None:
        usage = gpt.responses.create(model="gpt-4o", input=TALK).usage
        assert usage
        assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (TALKED, 1280)

    def test_a_stream_has_each_event_in_order_and_usage_in_the_last(self, gpt: openai.OpenAI) -> None:
        events: list[Any] = list(gpt.responses.create(model="gpt-4o", input=SKY, stream=True))
        kinds = list(dict.fromkeys(event.type for event in events))
        assert kinds == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
        assert events[0].response.usage is None
        assert events[-1].response.usage.total_tokens == 19
        assert events[-1].response.id == events[0].response.id

    def test_the_helpers_give_the_same_response(self, url: str, gpt: openai.OpenAI) -> None:
        async def ask() -> Any:
            client = openai.AsyncOpenAI(api_key="k", base_url=f"{url}/openai/v1")
            async with client, client.responses.stream(model="o3", input=SKY) as stream:
                return await stream.get_final_response()

        with gpt.responses.stream(model="o3", input=SKY) as stream:
            done = stream.get_final_response()
        other = asyncio.run(ask())
        assert done.output_text == other.output_text == SAID
        assert done.usage == other.usage
        assert done.usage
        assert done.usage.output_tokens == 14 + 64

    def test_parse_gives_an_object_of_the_schema(self, gpt: openai.OpenAI) -> None:
        done = gpt.responses.parse(model="gpt-4o", input=SKY, text_format=Planet)
        assert done.output_parsed == Planet(name="example", moons=["example"], is_gas=True)

    def test_a_function_is_called_and_its_result_is_answered(self, gpt: openai.OpenAI) -> None:
        tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
        with gpt.responses.stream(model="o3", input=SKY, tools=tools) as stream:
            done: Any = stream.get_final_response()
        call = done.output[-1]
        assert (call.type, json.loads(call.arguments)) == ("function_call", ARGUMENTS)
        assert done.usage.output_tokens == CALL_TOKENS + 64
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
        turn: Any = [*ASK, *(item.model_dump(exclude_none=True) for item in done.output), result]
        end = gpt.responses.create(model="o3", input=turn, tools=tools)
        assert end.output_text == f"{SAID} The tool said: Rain."

    def test_a_limit_leaves_the_response_incomplete(self, gpt: openai.OpenAI) -> None:
        *_, last = gpt.responses.create(model="gpt-4o", input=SKY, max_output_tokens=3, stream=True)
        assert last.type == "response.incomplete"
        assert last.response.output_text == SAID[:12]
        assert last.response.incomplete_details
        assert last.response.incomplete_details.reason == "max_output_tokens"


class TestEmbeddings:
    def test_vectors_are_the_same_in_both_encodings_and_differ_by_text(self, gpt: openai.OpenAI) -> None:
        create: Callable[..., Any] = gpt.embeddings.create
        packed = create(model="text-embedding-3-small", input=[SKY, "b"], encoding_format="base64")
        floats = create(model="text-embedding-3-small", input=[SKY, "b"], encoding_format="float")
        one, other = (item.embedding for item in floats.data)
        helped = create(model="text-embedding-3-small", input=[SKY, "b"]).data[0].embedding
        assert helped == pytest.approx(one, rel=1e-6)
        assert isinstance(packed.data[0].embedding, str)
        assert len(one) == 1536
        assert one != other
        assert sum(value * value for value in one) == pytest.approx(1)

    @pytest.mark.parametrize(("given", "size"), [(SKY, 5), ([SKY, "b"], 6), ([1, 2, 3], 3), ([[1, 2], [3]], 3)])
    def test_their_tokens_are_those_of_each_text(self, gpt: openai.OpenAI, given: Any, size: int) -> None:
        done = gpt.embeddings.create(model="text-embedding-3-small", input=given, dimensions=4)
        assert (done.usage.prompt_tokens, done.usage.total_tokens) == (size, size)
        assert {len(item.embedding) for item in done.data} == {4}

    def test_models_are_listed_and_any_is_found(self, gpt: openai.OpenAI) -> None:
        assert "gpt-4o-mini" in [model.id for model in gpt.models.list()]
        assert gpt.models.retrieve("mine").id == "mine"


class TestThoseWhoSpeakOpenAIsShape:
    def test_groq_streams_its_usage_in_x_groq(self, llama: groq.Groq) -> None:
        model = "openai/gpt-oss-120b"
        whole = llama.chat.completions.create(model=model, messages=ASK)
        chunks = list(llama.chat.completions.create(model=model, messages=ASK, stream=True))
        assert whole.choices[0].message.content == joined(chunks) == SAID
        assert len(whole.choices[0].message.reasoning or "") == 64 * 4
        first, *_, last = chunks
        assert first.x_groq
        assert first.x_groq.usage is None
        assert last.x_groq
        assert last.x_groq.usage == whole.usage
        assert last.choices[0].finish_reason == "stop"
        assert whole.usage
        assert whole.usage.completion_tokens == 14 + 64
        assert whole.usage.completion_tokens_details
        assert whole.usage.completion_tokens_details.reasoning_tokens == 64
        assert whole.usage.prompt_tokens_details is None

    def test_groq_answers_asynchronous_clients_and_openais(self, url: str, llama: groq.Groq) -> None:
        async def ask() -> Any:
            async with groq.AsyncGroq(api_key="k", base_url=f"{url}/groq") as client:
                return await client.chat.completions.create(model="llama-3.3-70b-versatile", messages=TALK)

        usage = asyncio.run(ask()).usage
        assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (TALKED, 1280)
        with openai.OpenAI(api_key="k", base_url=f"{url}/groq/openai/v1") as client:
            options: Any = {"include_usage": True}
            *_, last = client.chat.completions.create(
                model="llama-3.3-70b-versatile", messages=TALK, stream=True, stream_options=options
            )
        assert last.usage
        assert last.choices == []
        assert last.usage.total_tokens == usage.total_tokens

    def test_openrouter_tells_the_cost_and_streams_usage_with_a_choice(self, url: str) -> None:
        with openai.OpenAI(api_key="k", base_url=f"{url}/openrouter/v1") as client:
            whole: Any = client.chat.completions.create(model="openai/o3", messages=ASK)
            *chunks, last = client.chat.completions.create(model="openai/o3", messages=ASK, stream=True)
        assert whole.usage.cost == pytest.approx((5 + 2 * 78) / 1e6)
        assert whole.id.startswith("gen-")
        assert joined(chunks) == SAID
        assert last.usage == whole.usage
        assert len(last.choices) == 1

    def test_openrouter_writes_what_is_marked(self, url: str) -> None:
        content = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
        messages: Any = [{"role": "system", "content": content}, *ASK]
        with openai.OpenAI(api_key="k", base_url=f"{url}/openrouter/v1") as client:
            details: Any = client.chat.completions.create(model="x", messages=messages).usage
        assert details.prompt_tokens_details.cache_write_tokens == 1375
        assert details.prompt_tokens == tokens(LONG + SKY)

    def test_mistral_streams_usage_in_the_last_chunk_and_hides_reasoning(self, mistral: Mistral) -> None:
        whole: Any = mistral.chat.complete(model="magistral-medium-latest", messages=ASK)
        with mistral.chat.stream(model="magistral-medium-latest", messages=ASK) as stream:
            *chunks, last = (event.data for event in stream)
        assert whole.choices[0].message.content == joined(chunks) == SAID
        assert whole.usage.completion_tokens == 14 + 64
        assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
        assert last.usage == whole.usage
        assert last.choices[0].finish_reason == "stop"
        with mistral.chat.stream(model="mistral-small-latest", messages=ASK, n=2) as stream:
            usages = [event.data.usage for event in stream]
        assert usages[:-1] == [None] * len(usages[:-1])
        assert usages[-1]
        assert usages[-1].completion_tokens == 14 + 15

    def test_mistral_embeds_parses_and_lists_and_answers_asynchronous_clients(self, url: str, mistral: Mistral) -> None:
        async def ask() -> Any:
            async with Mistral(api_key="k", server_url=f"{url}/mistral") as client:
                return await client.chat.parse_async(Planet, model="mistral-small-latest", messages=ASK)

        assert mistral.embeddings.create(model="mistral-embed", inputs=[SKY]).usage.prompt_tokens == 5
        assert mistral.models.list().data
        parsed = asyncio.run(ask()).choices[0].message.parsed
        assert parsed == Planet(name="example", moons=["example"], is_gas=True)


class TestAnthropic:
    def test_a_message_and_its_usage_follow_from_the_request(self, claude: anthropic.Anthropic) -> None:
        message: Any = claude.messages.create(
            model="claude-sonnet-5-5", max_tokens=64, system="Be brief.", messages=ASK
        )
        assert message.content[0].text == SAID
        assert message.stop_reason == "end_turn"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (8, 14)
        assert (message.usage.cache_read_input_tokens, message.usage.cache_creation_input_tokens) == (0, 0)
        assert message.usage.output_tokens_details is None
        assert message.id.startswith("msg_01")
        counted = claude.messages.count_tokens(model="claude-sonnet-5-5", system="Be brief.", messages=ASK)
        assert counted.input_tokens == 8

    def test_a_stream_tells_the_output_first_as_one_then_as_all(self, claude: anthropic.Anthropic) -> None:
        events: list[Any] = list(
            claude.messages.create(model="claude-sonnet-5-5", max_tokens=64, messages=ASK, stream=True)
        )
        kinds = list(dict.fromkeys(event.type for event in events))
        assert kinds == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        start, delta = events[0].message.usage, events[-2].usage
        assert (start.input_tokens, start.output_tokens) == (5, 1)
        assert (delta.input_tokens, delta.output_tokens) == (5, 14)

    def test_the_stream_helper_ends_with_the_same_message(self, url: str, claude: anthropic.Anthropic) -> None:
        wish: Any = {
            "model": "claude-sonnet-5-5",
            "max_tokens": 2048,
            "messages": ASK,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        }

        async def ask() -> Any:
            client = anthropic.AsyncAnthropic(api_key="k", base_url=f"{url}/anthropic")
            async with client, client.messages.stream(**wish) as stream:
                return await stream.get_final_message()

        with claude.messages.stream(**wish) as stream:
            assert "".join(stream.text_stream) == SAID
            streamed: Any = stream.get_final_message()
        whole: Any = claude.messages.create(**wish)
        said = [message.model_dump(include={"content", "usage"}) for message in (streamed, asyncio.run(ask()))]
        assert said[0] == said[1]
        assert [block.type for block in streamed.content] == ["thinking", "text"]
        assert [block.type for block in whole.content] == ["thinking", "text"]
        assert streamed.usage == whole.usage
        assert whole.usage.output_tokens == 14 + 64
        assert whole.usage.output_tokens_details.thinking_tokens == 64

    def test_a_tool_is_used_and_its_result_is_answered(self, claude: anthropic.Anthropic) -> None:
        tools: Any = [{"name": "weather", "input_schema": WEATHER}]
        wish: Any = {"model": "claude-sonnet-5-5", "max_tokens": 64, "tools": tools}
        with claude.messages.stream(messages=ASK, **wish) as stream:
            used: Any = stream.get_final_message()
        block = used.content[0]
        assert (used.stop_reason, block.name, block.input) == ("tool_use", "weather", ARGUMENTS)
        assert used.usage.output_tokens == CALL_TOKENS
        result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "Rain."}]}
        turn = [*ASK, {"role": "assistant", "content": used.content}, {"role": "user", "content": [result]}]
        end: Any = claude.messages.create(messages=turn, **wish)
        assert end.content[0].text == f"{SAID} The tool said: Rain."

    @pytest.mark.parametrize(
        ("turns", "ttl", "words", "read_and_written"),
        [
            (1, "5m", "", (0, 1375)),
            (1, "1h", "", (0, 1375)),
            (3, "5m", "", (1375, 0)),
            (1, "5m", "warm", (1375, 0)),
        ],
    )
    def test_marks_decide_what_is_written_and_read(
        self, claude: anthropic.Anthropic, turns: int, ttl: Any, words: str, read_and_written: tuple[int, int]
    ) -> None:
        usage: Any = claude.messages.create(
            model="claude-sonnet-5-5",
            max_tokens=64,
            system=[{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": ttl}}],
            messages=TALK[1 : turns + 1],
            extra_headers=standin(words),
        ).usage
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == read_and_written
        by_lifetime = {"1h": usage.cache_creation.ephemeral_1h_input_tokens}
        by_lifetime["5m"] = usage.cache_creation.ephemeral_5m_input_tokens
        assert by_lifetime == {"1h": 0, "5m": 0} | {ttl: read_and_written[1]}
        text = LONG + "".join(turn["content"] for turn in TALK[1 : turns + 1])
        assert usage.input_tokens == tokens(text) - 1375

    def test_a_mark_of_the_whole_request_is_at_its_end(self, claude: anthropic.Anthropic) -> None:
        wish: Any = {"model": "claude-sonnet-5-5", "max_tokens": 64, "cache_control": {"type": "ephemeral"}}
        usage = claude.messages.create(system=LONG, messages=ASK, **wish).usage
        assert (usage.input_tokens, usage.cache_creation_input_tokens) == (0, tokens(LONG + SKY))
        short = claude.messages.create(messages=ASK, **wish).usage
        assert (short.input_tokens, short.cache_creation_input_tokens) == (5, 0)

    def test_parse_gives_an_object_of_the_schema_and_a_limit_ends_the_text(self, claude: anthropic.Anthropic) -> None:
        wish: Any = {"model": "claude-sonnet-5-5", "messages": ASK}
        parsed = claude.messages.parse(max_tokens=64, output_format=Planet, **wish)
        assert parsed.parsed_output == Planet(name="example", moons=["example"], is_gas=True)
        cut: Any = claude.messages.create(max_tokens=3, **wish)
        assert (cut.stop_reason, cut.content[0].text, cut.usage.output_tokens) == ("max_tokens", SAID[:12], 3)

    def test_server_tools_are_counted_and_not_called(self, claude: anthropic.Anthropic) -> None:
        tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
        wish: Any = {"model": "claude-sonnet-5-5", "max_tokens": 64, "messages": ASK, "tools": tools}
        message: Any = claude.messages.create(**wish)
        assert message.content[0].text == SAID
        assert message.usage.server_tool_use.web_search_requests == 1

    def test_the_version_and_the_limit_are_required(self, raw: httpx.Client) -> None:
        body = {"model": "claude-sonnet-5-5", "messages": ASK}
        unlimited = raw.post("/anthropic/v1/messages", json=body)
        assert (unlimited.status_code, unlimited.json()["error"]["type"]) == (400, "invalid_request_error")
        assert unlimited.json()["request_id"] == unlimited.headers["request-id"]
        undated = raw.post("/anthropic/v1/messages", json=body | {"max_tokens": 9}, headers={"anthropic-version": ""})
        assert "anthropic-version" in undated.json()["error"]["message"]


class TestGemini:
    def test_content_and_its_usage_follow_from_the_request(self, gemini: genai.Client) -> None:
        done = gemini.models.generate_content(
            model="gemini-2.0-flash", contents=SKY, config={"system_instruction": "Be brief."}
        )
        assert done.text == SAID
        usage: Any = done.usage_metadata
        assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (8, 14, 22)
        assert usage.thoughts_token_count is None
        assert done.response_id
        assert gemini.models.count_tokens(model="gemini-2.0-flash", contents=SKY).total_tokens == 5

    def test_every_chunk_of_a_stream_has_the_usage_so_far(self, url: str, gemini: genai.Client) -> None:
        async def ask() -> str:
            async with genai.Client(api_key="k", http_options={"base_url": f"{url}/gemini"}).aio as client:
                stream = await client.models.generate_content_stream(model="gemini-2.5-flash", contents=SKY)
                return "".join([chunk.text or "" async for chunk in stream])

        chunks: list[Any] = list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents=SKY))
        counts = [chunk.usage_metadata.candidates_token_count for chunk in chunks]
        assert "".join(chunk.text for chunk in chunks) == SAID == asyncio.run(ask())
        assert counts == sorted(counts)
        assert counts[0] < counts[-1] == 14
        assert {chunk.usage_metadata.thoughts_token_count for chunk in chunks} == {64}
        assert chunks[-1].usage_metadata.total_token_count == 5 + 14 + 64
        assert len({chunk.response_id for chunk in chunks}) == 1
        assert [chunk.candidates[0].finish_reason for chunk in chunks[-2:]] == [None, gemini_types.FinishReason.STOP]

    @pytest.mark.parametrize(
        ("thinking", "size"),
        [({}, 64), ({"thinking_budget": 0}, 0), ({"thinking_budget": -1}, 64), ({"thinking_level": "high"}, 128)],
    )
    def test_thoughts_are_shown_if_asked_for_and_counted_by_the_rule(
        self, gemini: genai.Client, thinking: Json, size: int
    ) -> None:
        config: Any = {"thinking_config": {"include_thoughts": True, **thinking}}
        done: Any = gemini.models.generate_content(model="gemini-2.5-flash", contents=SKY, config=config)
        thoughts = [part.text for part in done.candidates[0].content.parts if part.thought]
        assert [len(text) for text in thoughts] == ([size * 4] if size else [])
        assert (done.usage_metadata.thoughts_token_count or 0) == size
        assert done.text == SAID

    def test_candidates_add_up_in_both_forms(self, gemini: genai.Client) -> None:
        wish: Any = {"model": "gemini-2.5-flash", "contents": SKY, "config": {"candidate_count": 2}}
        done: Any = gemini.models.generate_content(**wish)
        *_, last = gemini.models.generate_content_stream(**wish)
        assert [part.content.parts[0].text for part in done.candidates] == [SAID, f"{SAID} (2)"]
        assert done.usage_metadata.candidates_token_count == 14 + 15
        assert done.usage_metadata.thoughts_token_count == 2 * 64
        assert last.usage_metadata == done.usage_metadata

    def test_a_chat_reads_its_earlier_turns_from_the_cache(self, gemini: genai.Client) -> None:
        chat = gemini.chats.create(model="gemini-2.0-flash", config={"system_instruction": LONG})
        first: Any = chat.send_message("Hello!").usage_metadata
        second: Any = chat.send_message(SKY).usage_metadata
        assert first.cached_content_token_count is None
        assert second.cached_content_token_count == 1280
        answered = "This is the stand-in's answer to: Hello!"
        assert second.prompt_token_count == tokens(LONG + "Hello!" + answered + SKY)

    def test_cached_content_and_server_tools_have_tokens_of_their_own(self, gemini: genai.Client) -> None:
        cached: Any = {"cached_content": "cachedContents/books"}
        held: Any = gemini.models.generate_content(model="gemini-2.0-flash", contents=SKY, config=cached).usage_metadata
        assert (held.prompt_token_count, held.cached_content_token_count) == (2048 + 5, 2048)
        search: Any = {"tools": [{"google_search": {}}]}
        used: Any = gemini.models.generate_content(model="gemini-2.0-flash", contents=SKY, config=search).usage_metadata
        assert used.tool_use_prompt_token_count == 32
        assert used.total_token_count == used.prompt_token_count + 32 + used.candidates_token_count

    def test_a_function_is_called_and_its_result_is_answered(self, gemini: genai.Client) -> None:
        asked: list[str] = []

        def weather(city: str) -> str:
            """Tell the weather of a city."""
            asked.append(city)
            return "Rain."

        chat = gemini.chats.create(model="gemini-2.0-flash", config={"tools": [weather]})
        done: Any = chat.send_message(SKY)
        assert asked == ["example"]
        assert done.text == f'{SAID} The tool said: {{"result":"Rain."}}'

    def test_a_streamed_call_comes_whole(self, gemini: genai.Client) -> None:
        declared: Any = {"name": "weather", "parameters_json_schema": WEATHER}
        config: Any = {"tools": [{"function_declarations": [declared]}]}
        (chunk,) = gemini.models.generate_content_stream(model="gemini-2.0-flash", contents=SKY, config=config)
        assert chunk.function_calls
        assert (chunk.function_calls[0].name, chunk.function_calls[0].args) == ("weather", ARGUMENTS)
        assert chunk.usage_metadata
        assert chunk.usage_metadata.candidates_token_count == CALL_TOKENS

    def test_a_schema_gives_an_object_and_a_limit_ends_the_text(self, gemini: genai.Client) -> None:
        json_mode: Any = {"response_mime_type": "application/json", "response_schema": Planet}
        parsed = gemini.models.generate_content(model="gemini-2.0-flash", contents=SKY, config=json_mode).parsed
        assert parsed == Planet(name="example", moons=["example"], is_gas=True)
        limit: Any = {"max_output_tokens": 3}
        cut: Any = gemini.models.generate_content(model="gemini-2.0-flash", contents=SKY, config=limit)
        assert (cut.text, cut.candidates[0].finish_reason.name) == (SAID[:12], "MAX_TOKENS")

    def test_embeddings_have_their_tokens(self, gemini: genai.Client, raw: httpx.Client) -> None:
        config: Any = {"output_dimensionality": 4}
        many: Any = gemini.models.embed_content(model="gemini-embedding-001", contents=[SKY, "b"], config=config)
        assert [len(one.values) for one in many.embeddings] == [4, 4]
        assert many.usage_metadata.prompt_token_count == 5 + 1
        body = {"content": {"parts": [{"text": SKY}]}, "output_dimensionality": 4}
        one = raw.post("/gemini/v1beta/models/gemini-embedding-001:embedContent", json=body).json()
        assert one["embedding"]["values"] == many.embeddings[0].values
        assert one["usageMetadata"]["promptTokenCount"] == 5

    def test_a_stream_without_sse_is_a_json_array(self, raw: httpx.Client) -> None:
        body = {"contents": [{"parts": [{"text": SKY}]}]}
        chunks = raw.post("/gemini/v1beta/models/gemini-2.0-flash:streamGenerateContent", json=body).json()
        assert "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks) == SAID
