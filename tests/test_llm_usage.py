"""usage_of: the same five buckets, whoever answered, in whatever shape; and what is wrong is said once."""

import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import anthropic.types
import groq.types.chat
import openai.types.chat
import openai.types.responses
import pytest
from google.genai import types as gemini_types
from hypothesis import given
from hypothesis import strategies as st
from mistralai.client import models as mistral_models

import build_site
import llm_picture
import test_blueprint as checks
from meterprint import Blueprint, Event, ValidationError
from meterprint.blueprints.llm import BLUEPRINT, Usage, usage_of
from meterprint.blueprints.llm.definition import BUCKETS

Buckets: TypeAlias = tuple[int, int, int, int, int]  # input, cached, written, output, reasoning

CHAT_USAGE: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 300,
    "total_tokens": 1300,
    "prompt_tokens_details": {"cached_tokens": 640, "cache_write_tokens": 128, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 200, "accepted_prediction_tokens": 0},
}
CHAT: dict[str, Any] = {
    "id": "chatcmpl-8f2b4c6d",
    "object": "chat.completion",
    "created": 1_795_000_000,
    "model": "gpt-5.4-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": CHAT_USAGE,
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-6-sol",
    "status": "completed",
    "output": [],
    "usage": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 640, "cache_write_tokens": 128},
        "output_tokens": 300,
        "output_tokens_details": {"reasoning_tokens": 200},
        "total_tokens": 1300,
    },
}
MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 232,
        "cache_read_input_tokens": 640,
        "cache_creation_input_tokens": 128,
        "cache_creation": {"ephemeral_5m_input_tokens": 128, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 300,
        "output_tokens_details": {"thinking_tokens": 200},
    },
}
GENERATED: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 640,
        "toolUsePromptTokenCount": 32,
        "candidatesTokenCount": 100,
        "thoughtsTokenCount": 200,
        "totalTokenCount": 1332,
    },
    "modelVersion": "gemini-3.8-flash",
    "responseId": "r-1",
}


def buckets(usage: Usage) -> Buckets:
    return (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


def chat(**usage: Any) -> dict[str, Any]:
    return {**CHAT, "usage": usage}


SHAPES: dict[str, tuple[dict[str, Any], Usage]] = {
    "openai chat": (CHAT, Usage("openai", "gpt-5.4-mini", "chat", "chatcmpl-8f2b4c6d", 232, 640, 128, 100, 200)),
    "openai responses": (RESPONSE, Usage("openai", "gpt-6-sol", "responses", "resp_1", 232, 640, 128, 100, 200)),
    "anthropic": (MESSAGE, Usage("anthropic", "claude-sonnet-5-5", "chat", "msg_01", 232, 640, 128, 100, 200)),
    "gemini": (GENERATED, Usage("gemini", "gemini-3.8-flash", "chat", "r-1", 392, 640, 0, 100, 200)),
}
OBJECTS: dict[str, Any] = {
    "openai chat": openai.types.chat.ChatCompletion.model_validate(CHAT),
    "openai responses": openai.types.responses.Response.model_construct(
        **{**RESPONSE, "usage": openai.types.responses.ResponseUsage.model_validate(RESPONSE["usage"])}
    ),
    "anthropic": anthropic.types.Message.model_validate(MESSAGE),
    "gemini": gemini_types.GenerateContentResponse.model_validate(GENERATED),
}
each_shape = pytest.mark.parametrize("name", SHAPES)


@each_shape
def test_json_gives_the_buckets_as_mapping_text_and_bytes(name: str, caplog: pytest.LogCaptureFixture) -> None:
    answer, expected = SHAPES[name]
    text = json.dumps(answer)
    assert [usage_of(form) for form in (answer, text, text.encode())] == [expected] * 3
    assert not caplog.records


@each_shape
def test_the_sdk_object_gives_the_same_as_its_json(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert usage_of(OBJECTS[name]) == SHAPES[name][1]
    assert not caplog.records


@each_shape
def test_the_total_is_what_the_provider_says(name: str) -> None:
    answer, expected = SHAPES[name]
    said = answer.get("usage") or answer["usageMetadata"]
    assert expected.total_tokens == said.get("total_tokens", said.get("totalTokenCount", 1300))


def test_objects_of_groq_and_mistral_name_their_provider() -> None:
    usage = {key: value for key, value in CHAT_USAGE.items() if not key.endswith("details")}
    from_groq = groq.types.chat.ChatCompletion.model_validate({**CHAT, "usage": {**usage, "queue_time": 0.1}})
    assert usage_of(from_groq) == Usage("groq", "gpt-5.4-mini", "chat", "chatcmpl-8f2b4c6d", 1000, 0, 0, 300, 0)
    from_mistral = mistral_models.ChatCompletionResponse.model_validate({**CHAT, "usage": usage})
    assert usage_of(from_mistral) == Usage("mistral", "gpt-5.4-mini", "chat", "chatcmpl-8f2b4c6d", 1000, 0, 0, 300, 0)


def test_embeddings_have_input_alone() -> None:
    answer = {"object": "list", "data": [], "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8}}
    expected = Usage("openai", "text-embedding-3-small", "embedding", "", 8)
    made: Any = openai.types.CreateEmbeddingResponse.model_construct
    assert usage_of(answer) == usage_of(made(**answer)) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # xAI counts the reasoning beside the completion, which the total tells.
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            (32, 0, 0, 9, 94),
        ),
        # DeepSeek, Moonshot
        ({"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64}, (36, 64, 0, 5, 0)),
        ({"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 64}, (36, 64, 0, 5, 0)),
        # LiteLLM of Anthropic: the caches are in the prompt, and told twice.
        (
            {
                "prompt_tokens": 1000,
                "completion_tokens": 300,
                "total_tokens": 1300,
                "prompt_tokens_details": {"cached_tokens": 640, "cache_creation_tokens": 128},
                "cache_read_input_tokens": 640,
                "cache_creation_input_tokens": 128,
            },
            (232, 640, 128, 300, 0),
        ),
        # The Vercel AI SDK, of now and before
        (
            {
                "inputTokens": 1000,
                "inputTokenDetails": {"noCacheTokens": 232, "cacheReadTokens": 640, "cacheWriteTokens": 128},
                "outputTokens": 300,
                "outputTokenDetails": {"textTokens": 100, "reasoningTokens": 200},
                "totalTokens": 1300,
            },
            (232, 640, 128, 100, 200),
        ),
        (
            {"inputTokens": 1000, "outputTokens": 300, "reasoningTokens": 200, "cachedInputTokens": 640},
            (360, 640, 0, 100, 200),
        ),
        # pydantic-ai, LangChain
        (
            {
                "input_tokens": 1000,
                "cache_read_tokens": 640,
                "cache_write_tokens": 128,
                "output_tokens": 300,
                "details": {"reasoning_tokens": 200},
            },
            (232, 640, 128, 100, 200),
        ),
        (
            {
                "input_tokens": 1000,
                "output_tokens": 300,
                "total_tokens": 1300,
                "input_token_details": {"cache_read": 640, "cache_creation": 128},
                "output_token_details": {"reasoning": 200},
            },
            (232, 640, 128, 100, 200),
        ),
        (
            {
                "input_tokens": 1380,
                "output_tokens": 14,
                "input_token_details": {
                    "cache_read": 0,
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 1000,
                    "ephemeral_1h_input_tokens": 375,
                },
            },
            (5, 0, 1375, 14, 0),
        ),
        # Gemini's interactions, Bedrock's Converse, Cohere
        (
            {
                "total_input_tokens": 1000,
                "total_cached_tokens": 640,
                "total_tool_use_tokens": 32,
                "total_output_tokens": 100,
                "total_thought_tokens": 200,
            },
            (392, 640, 0, 100, 200),
        ),
        (
            {"inputTokens": 232, "outputTokens": 300, "cacheReadInputTokens": 640, "cacheWriteInputTokens": 128},
            (232, 640, 128, 300, 0),
        ),
        ({"billed_units": {"input_tokens": 7, "output_tokens": 3}, "tokens": {"input_tokens": 90}}, (7, 0, 0, 3, 0)),
        # Speech by the minute
        ({"type": "duration", "seconds": 9}, (0, 0, 0, 0, 0)),
        # A total that nothing explains changes nothing.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 99}, (10, 0, 0, 5, 0)),
        ({"prompt_tokens": 10.0, "completion_tokens": 5}, (10, 0, 0, 5, 0)),
    ],
)
def test_other_shapes_give_their_buckets(usage: Any, expected: Buckets, caplog: pytest.LogCaptureFixture) -> None:
    found = usage_of(chat(**usage))
    assert (buckets(found), found.estimated) == (expected, False)
    assert not caplog.records


def test_gemini_in_openais_shape_hides_its_thoughts_in_the_total() -> None:
    answer = {**chat(prompt_tokens=20, completion_tokens=424, total_tokens=1016), "model": "gemini-3.8-flash"}
    assert buckets(usage_of(answer)) == (20, 0, 0, 424, 572)


def test_a_usage_alone_will_do() -> None:
    expected = (232, 640, 128, 100, 200)
    assert buckets(usage_of(CHAT_USAGE)) == expected
    assert buckets(usage_of(OBJECTS["openai chat"].usage)) == expected
    assert buckets(usage_of(SimpleNamespace(input_tokens=1, output_tokens=2))) == (1, 0, 0, 2, 0)


def test_the_events_of_streams_that_have_the_usage_will_do() -> None:
    assert usage_of({"type": "response.completed", "response": RESPONSE}) == SHAPES["openai responses"][1]
    assert usage_of({"type": "message_start", "message": MESSAGE}) == SHAPES["anthropic"][1]
    chunk = {**CHAT, "object": "chat.completion.chunk", "choices": [], "usage": None}
    assert usage_of({**chunk, "x_groq": {"id": "req_1", "usage": CHAT_USAGE}}).provider == "groq"


def test_the_caller_may_say_who_answered() -> None:
    usage = usage_of(CHAT, provider="openrouter")
    assert usage.provider == "openrouter"
    assert usage.event_id() == Event.id_for("openrouter", "chatcmpl-8f2b4c6d")


@pytest.mark.parametrize(
    "response", [None, 7, [], {}, "", "null", "no JSON", b"\xff", "[1]", object(), {"a": 1}, usage_of]
)
def test_what_is_no_answer_is_refused(response: object) -> None:
    with pytest.raises(ValidationError, match="is no answer of a provider: give the object that the provider's SDK"):
        usage_of(response)


@pytest.mark.parametrize(
    ("usage", "expected", "reason"),
    [
        ({"prompt_tokens": -5, "completion_tokens": 7}, (0, 0, 0, 7, 0), "usage.prompt_tokens is -5, not a count"),
        ({"prompt_tokens": 5, "completion_tokens": None}, (5, 0, 0, 0, 0), "usage has no count of the output"),
        ({"prompt_tokens": None, "completion_tokens": 7}, (0, 0, 0, 7, 0), "usage has no count of the input"),
        ({"completion_tokens": 7}, (0, 0, 0, 7, 0), "usage has no count of the input"),
        ({"prompt_tokens": "12", "completion_tokens": 7}, (12, 0, 0, 7, 0), 'usage.prompt_tokens is "12", not a count'),
        ({"prompt_tokens": "many", "completion_tokens": 7}, (0, 0, 0, 7, 0), 'is "many", not a count'),
        ({"prompt_tokens": True, "completion_tokens": 7}, (0, 0, 0, 7, 0), "is true, not a count"),
        ({"prompt_tokens": 1.5, "completion_tokens": 7}, (0, 0, 0, 7, 0), "is 1.5, not a count"),
        ({"prompt_tokens": float("nan"), "completion_tokens": 7}, (0, 0, 0, 7, 0), "is nan, not a count"),
        ({"prompt_tokens": 10**13, "completion_tokens": 7}, (0, 0, 0, 7, 0), "is 10000000000000, not a count"),
        ({"prompt_tokens": [1], "completion_tokens": 7}, (0, 0, 0, 7, 0), "is [1], not a count"),
        (
            {"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 11}},
            (0, 10, 0, 7, 0),
            "11 tokens of cached input are more than the 10 that they are part of",
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 8}},
            (10, 0, 0, 0, 7),
            "8 tokens of reasoning are more than the 7 that they are part of",
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": -1}},
            (10, 0, 0, 7, 0),
            "usage.prompt_tokens_details.cached_tokens is -1, not a count",
        ),
        ({}, (0, 0, 0, 0, 0), "usage has no count of the input"),
    ],
)
def test_bad_numbers_are_said_in_one_warning_with_the_id_and_marked(
    usage: Any, expected: Buckets, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = usage_of(chat(**usage))
    assert (buckets(found), found.estimated) == (expected, True)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("openai response chatcmpl-8f2b4c6d: ")
    assert reason in record.getMessage()


def test_an_answer_without_usage_is_marked_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    usage = usage_of({**CHAT, "usage": None})
    assert usage == Usage("openai", "gpt-5.4-mini", "chat", "chatcmpl-8f2b4c6d", estimated=True)
    assert "openai response chatcmpl-8f2b4c6d: it has no usage: its event is marked estimated" in caplog.text


def test_null_details_are_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    details = {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}}
    assert buckets(usage_of(chat(prompt_tokens=3, completion_tokens=4, **details))) == (3, 0, 0, 4, 0)
    nulls = {"cache_read_input_tokens": None, "cache_creation_input_tokens": None}
    message = {**MESSAGE, "usage": {"input_tokens": 3, "output_tokens": 4, **nulls}}
    assert buckets(usage_of(message)) == (3, 0, 0, 4, 0)
    assert not caplog.records


def test_the_same_answer_has_the_same_event_id_and_one_without_an_id_a_new_one() -> None:
    assert usage_of(CHAT).event_id() == usage_of(json.dumps(CHAT)).event_id() == Event.id_for("openai", CHAT["id"])
    without = usage_of({**CHAT, "id": None})
    assert without.event_id() != without.event_id()


def test_ids_that_come_back_name_no_answer() -> None:
    usage = usage_of({**CHAT, "id": "chatcmpl-417"})  # Ollama draws them from a thousand
    assert usage.event_id() != usage.event_id()


@pytest.mark.parametrize("text", ["m" * 600, "\ud800", "gpt\x00"])
def test_any_text_of_a_provider_makes_a_valid_event(text: str) -> None:
    usage = usage_of({**CHAT, "id": text, "model": text}, provider=text)
    BLUEPRINT.check(Event(usage.event_id(), "cus_ada", "llm.usage", metadata=usage.metadata()))


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.sampled_from(
    [*CHAT_USAGE, *MESSAGE["usage"], *GENERATED["usageMetadata"], "cached_tokens", "reasoning_tokens"]
)
usages = st.dictionaries(names, values | st.dictionaries(names, values, max_size=4) | st.lists(values), max_size=8)


@given(usages)
def test_whatever_is_reported_the_event_is_valid_and_nothing_raises(usage: Any) -> None:
    found = usage_of({**CHAT, "usage": usage})
    BLUEPRINT.check(Event(found.event_id(), "cus_ada", "llm.usage", metadata=found.metadata()))
    assert found.total_tokens == sum(buckets(found)) >= 0


@pytest.mark.parametrize(
    "check",
    [
        checks.test_the_samples_are_valid_events,
        checks.test_the_samples_measure_and_cost_what_they_must,
        checks.test_every_meter_counts_some_samples_and_those_with_a_filter_not_all,
        checks.test_every_price_and_quantity_names_a_meter,
        checks.test_meters_read_only_keys_that_the_events_have,
        checks.test_keys_are_snake_case_and_numbers_carry_their_unit,
        checks.test_meters_survive_the_wire,
    ],
)
def test_the_blueprint_agrees_with_itself(check: Callable[[Blueprint], None]) -> None:
    check(BLUEPRINT)


def test_the_buckets_of_each_sample_add_up_to_its_total() -> None:
    for sample in BLUEPRINT.samples:
        assert sample.metadata["total_tokens"] == sum(sample.metadata[name] for name in BUCKETS)  # type: ignore[misc]


# The picture on the page.


@pytest.mark.parametrize("provider", llm_picture.COVERS)
def test_the_picture_of_a_providers_counters_is_what_is_read_of_them(provider: str) -> None:
    amounts = dict(zip(llm_picture.BUCKETS, (1, 20, 300, 4_000, 50_000), strict=True))
    counters = llm_picture.COVERS[provider]
    counted = {bucket for covered in counters.values() for bucket in covered}
    usage: dict[str, Any] = {}
    for path, covered in counters.items():
        *outer, name = path.split(".")
        inside = usage.setdefault(outer[0], {}) if outer else usage
        inside[name] = sum(amounts[bucket] for bucket in covered)
    expected = [amounts[bucket] if bucket in counted else 0 for bucket in llm_picture.BUCKETS]
    found = usage_of({"id": "r", "model": "m", "usage" if provider != "Gemini" else "usageMetadata": usage})
    assert [getattr(found, name) for name in BUCKETS] == expected


@pytest.mark.parametrize("language", build_site.LANGUAGES)
def test_the_picture_of_the_counters_is_as_it_is_drawn(language: str) -> None:
    drawn = llm_picture.draw(build_site.Texts(language))
    assert (llm_picture.DOCS / language / "assets" / llm_picture.NAME).read_text(encoding="utf-8") == drawn
