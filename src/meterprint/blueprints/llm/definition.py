"""The LLM blueprint as data: what is sent, what is counted, what it costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ...blueprint import Blueprint, EventType, Field, Sample
from ...meter import Aggregation, Condition, Filter, Meter
from ...pricing import Price

USAGE = EventType(
    name="llm.usage",
    meaning="Once for each answer of a model, when it is complete or was broken off.",
    fields=(
        Field("provider", "string", "Who answered.", "openai"),
        Field("model", "string", "The model, as the answer names it.", "gpt-5.4-mini"),
        Field("operation", "string", "chat, responses, completion, embedding, image or audio.", "chat"),
        Field("input_tokens", "integer", "Input that was neither read from a cache nor written to one.", 900, "token"),
        Field("cached_input_tokens", "integer", "Input that was read from a cache.", 1100, "token"),
        Field("cache_write_tokens", "integer", "Input that was written to a cache.", 0, "token"),
        Field("output_tokens", "integer", "Output without the reasoning.", 300, "token"),
        Field("reasoning_tokens", "integer", "What the model thought before it answered.", 0, "token"),
        Field("total_tokens", "integer", "The sum of the five, which never overlap.", 2300, "token"),
        Field("estimated", "boolean", "Whether some of the numbers are our estimate, not the provider's count.", False),
        Field("feature", "string", "What the answer was for, if the caller says so.", "support_chat", required=False),
        Field("plan", "string", "The plan of the customer, if the caller says so.", "pro", required=False),
    ),
)

BUCKETS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")

_LARGE_MODEL = "claude-opus-5-5"


def _tokens(name: str, key: str, description: str, only: Filter | None = None) -> Meter:
    return Meter(
        name=name,
        event_name=USAGE.name,
        aggregation=Aggregation("sum", key),
        measurement_unit="token",
        filter=only,
        description=description,
    )


def _used(model: str, provider: str, times: int, **values: Any) -> Sample:
    """A sample whose total is the sum of its buckets."""
    buckets = dict.fromkeys(BUCKETS, 0) | {key: value for key, value in values.items() if key in BUCKETS}
    total = sum(buckets.values())
    measured: dict[str, Any] = {**values, **buckets, "total_tokens": total}
    return Sample(USAGE.name, USAGE.sample(provider=provider, model=model, **measured), times)


BLUEPRINT = Blueprint(
    slug="llm",
    title="LLM",
    summary="Bill the tokens of language models: input, cached input, cache writes, output and reasoning.",
    events=(USAGE,),
    meters=(
        _tokens("Input tokens", "input_tokens", "Input at the full price."),
        _tokens("Cached input tokens", "cached_input_tokens", "Input that was read from a cache, which costs less."),
        _tokens("Cache write tokens", "cache_write_tokens", "Input that was written to a cache, which costs more."),
        _tokens("Output tokens", "output_tokens", "What the customer sees of the answers."),
        _tokens("Reasoning tokens", "reasoning_tokens", "Priced as output, and shown apart from it."),
        _tokens(
            "Large model output tokens",
            "output_tokens",
            "The output of one model, at a price on top.",
            Filter("and", (Condition("model", "equals", _LARGE_MODEL),)),
        ),
        Meter(
            name="LLM requests",
            event_name=USAGE.name,
            aggregation=Aggregation("count"),
            measurement_unit="request",
            description="Every answer, whatever its length.",
        ),
    ),
    prices=(
        Price("Input tokens", Decimal("0.0003"), free_threshold=Decimal(100_000)),
        Price("Cached input tokens", Decimal("0.00003")),
        Price("Cache write tokens", Decimal("0.000375")),
        Price("Output tokens", Decimal("0.0015")),
        Price("Reasoning tokens", Decimal("0.0015")),
        Price("Large model output tokens", Decimal("0.001")),
    ),
    samples=(
        _used("gpt-5.4-mini", "openai", 1_000, input_tokens=900, cached_input_tokens=1_024, output_tokens=300),
        _used(
            "gpt-6-sol",
            "openai",
            100,
            operation="responses",
            input_tokens=1_200,
            cached_input_tokens=2_816,
            output_tokens=400,
            reasoning_tokens=1_600,
        ),
        _used(
            _LARGE_MODEL,
            "anthropic",
            50,
            input_tokens=60,
            cached_input_tokens=18_000,
            cache_write_tokens=3_000,
            output_tokens=800,
        ),
        _used("gemini-3.8-flash", "gemini", 200, input_tokens=700, output_tokens=150, reasoning_tokens=350),
        _used("text-embedding-3-small", "openai", 40, operation="embedding", input_tokens=8_000),
        _used("gpt-5.4-mini", "openai", 10, input_tokens=900, output_tokens=120, estimated=True),
    ),
    quantities={
        "Input tokens": Decimal(1_492_000),
        "Cached input tokens": Decimal(2_205_600),
        "Cache write tokens": Decimal(150_000),
        "Output tokens": Decimal(411_200),
        "Reasoning tokens": Decimal(230_000),
        "Large model output tokens": Decimal(40_000),
        "LLM requests": Decimal(1_400),
    },
    invoice_total=1_542,
)
