"""OpenAI: chat completions, embeddings and models; and what others who speak its shape have in common with it."""

from __future__ import annotations

import base64
import struct
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.routing import BaseRoute

from .answer import Answer, Schema, Wish, answer, chosen, vector
from .prompt import (
    Counts,
    Piece,
    Prompt,
    compact,
    is_reasoning,
    mapping,
    mappings,
    mark_of,
    read_content,
    read_tools,
    reasoning_tokens,
    speaker_of,
    tokens,
    whole,
)
from .responses import responses
from .serving import Call, Provider, RefusedError, Reply, data

DONE = b"data: [DONE]\n\n"
_MOST_CHOICES = 128
_MOST_DIMENSIONS = 4096


@dataclass(frozen=True, slots=True)
class Completion:
    """One chat completion, before it has the shape of an answer.

    Attributes:
        head: What the answer, or each chunk, has first.
        answers: What the model says, choice by choice.
        counts: The tokens of all choices together.
        thinking: The tokens that each choice thinks.
    """

    head: dict[str, Any]
    answers: Sequence[Answer]
    counts: Counts
    thinking: int

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A chunk of a stream."""
        return {**self.head, "object": "chat.completion.chunk", "choices": choices, **more}


class OpenAI(Provider):
    """OpenAI."""

    name = "openai"
    prefix = "/v1"
    dimensions = 1536
    embeds_with_id = False
    models: ClassVar[Sequence[str]] = ("gpt-4o-mini", "gpt-5", "gpt-5.6-sol", "o3", "text-embedding-3-small")

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        return [*self.shared_routes(), self.route(f"{self.prefix}/responses", self._responses)]

    def shared_routes(self) -> list[BaseRoute]:
        """The endpoints of all who speak its shape."""
        return [
            self.route(f"{self.prefix}/chat/completions", self._chat),
            self.route(f"{self.prefix}/embeddings", self._embeddings),
            self.route(f"{self.prefix}/models", self._models, "GET"),
            self.route(f"{self.prefix}/models/{{model:path}}", self._model, "GET"),
        ]

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        """A refusal in OpenAI's shape."""
        kind, code = {
            401: ("invalid_request_error", "invalid_api_key"),
            429: ("requests", "rate_limit_exceeded"),
        }.get(refused.status, ("invalid_request_error" if refused.status < 500 else "server_error", None))
        return {"error": {"message": refused.message, "type": kind, "param": None, "code": code}}

    def new_id(self) -> str:
        """The id of a completion."""
        return f"chatcmpl-{uuid.uuid4().hex[:29]}"

    def usage(self, counts: Counts) -> dict[str, Any]:
        """The usage of a completion."""
        details = {"cached_tokens": counts.cached, "cache_write_tokens": counts.written, "audio_tokens": 0}
        return totals(counts) | {
            "prompt_tokens_details": details,
            "completion_tokens_details": {
                "reasoning_tokens": counts.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def message(self, said: Answer, thinking: int) -> dict[str, Any]:
        """The message of a choice."""
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
        return message | ({"tool_calls": [_tool_call(said)]} if said.call else {"annotations": []})

    def whole_answer(self, call: Call, done: Completion) -> dict[str, Any]:
        """A completion in one piece."""
        choices = [
            {
                "index": index,
                "message": self.message(said, done.thinking),
                "logprobs": None,
                "finish_reason": finish_reason(said),
            }
            for index, said in enumerate(done.answers)
        ]
        answered = {**done.head, "object": "chat.completion", "choices": choices}
        return call.with_usage(answered, self.usage(done.counts))

    def events(self, call: Call, done: Completion) -> Iterator[bytes]:
        """A completion as a stream."""
        is_wanted = wants_usage(call)
        null = {"usage": None} if is_wanted else {}
        for index, said in enumerate(done.answers):
            for delta in deltas(said):
                yield data(done.chunk([streamed(index, delta)], **null))
            yield data(done.chunk([streamed(index, {}, finish_reason(said))], **null))
        usage = call.with_usage(done.chunk([]), self.usage(done.counts))
        if is_wanted and "usage" in usage:
            yield data(usage)
        yield DONE

    def _chat(self, call: Call) -> Reply:
        done = self._completion(call)
        if call.body.get("stream") is True:
            return self.stream(call, self.events(call, done))
        return self.json(call, self.whole_answer(call, done))

    def _completion(self, call: Call) -> Completion:
        model = call.text("model")
        prompt, wish = _prompt(call), _wish(call)
        choices = min(max(1, whole(call.body.get("n"), 1)), _MOST_CHOICES)
        answers = [answer(prompt, wish, choice) for choice in range(choices)]
        thinking = reasoning_tokens(_effort(call)) if is_reasoning(model) else 0
        counts = prompt.counts(
            prompt.cached(model, warm=call.behaviour.warm),
            output=sum(said.tokens for said in answers),
            reasoning=thinking * choices,
        )
        head = {"id": self.new_id(), "created": int(time.time()), "model": model}
        return Completion(head, answers, counts, thinking)

    def _responses(self, call: Call) -> Reply:
        answered, events = responses(call)
        return self.stream(call, events) if call.body.get("stream") is True else self.json(call, answered)

    def _embeddings(self, call: Call) -> Reply:
        texts = _inputs(call.body.get("input"))
        dimensions = min(max(1, whole(call.body.get("dimensions"), self.dimensions)), _MOST_DIMENSIONS)
        packs = call.body.get("encoding_format") == "base64"
        vectors = [vector(str(text), dimensions) for text in texts]
        used = sum(tokens(text) if isinstance(text, str) else len(text) for text in texts)
        answered: dict[str, Any] = {
            **({"id": self.new_id()} if self.embeds_with_id else {}),
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _packed(values) if packs else values}
                for index, values in enumerate(vectors)
            ],
            "model": call.text("model"),
        }
        return self.json(call, call.with_usage(answered, {"prompt_tokens": used, "total_tokens": used}))

    def _models(self, call: Call) -> Reply:
        return self.json(call, {"object": "list", "data": [self.card(model) for model in self.models]})

    def _model(self, call: Call) -> Reply:
        return self.json(call, self.card(call.request.path_params["model"]))

    def card(self, model: str) -> dict[str, Any]:
        """What is said of a model."""
        return {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": self.name}


def totals(counts: Counts) -> dict[str, Any]:
    """The three numbers that everybody has."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def wants_usage(call: Call) -> bool:
    """Whether a stream is to end with its usage."""
    return mapping(call.body.get("stream_options")).get("include_usage") is True


def finish_reason(said: Answer) -> str:
    """Why the model said no more."""
    return "tool_calls" if said.call else "length" if said.is_cut else "stop"


def deltas(said: Answer) -> Iterator[dict[str, Any]]:
    """What each chunk adds."""
    if said.call:
        begun = _tool_call(said)
        begun["function"] = {"name": said.call.name, "arguments": ""}
        yield {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **begun}]}
        for part in (said.call.json[:2], said.call.json[2:]):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
        return
    yield {"role": "assistant", "content": "", "refusal": None}
    for word in said.chunks:
        yield {"content": word}


def streamed(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """A choice of a chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _tool_call(said: Answer) -> dict[str, Any]:
    assert said.call is not None
    function = {"name": said.call.name, "arguments": said.call.json}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _prompt(call: Call) -> Prompt:
    pieces = list(read_tools(call.body.get("tools")))
    for message in mappings(call.items("messages")):
        pieces += _pieces(message)
    return Prompt(pieces, marks_end=mark_of(call.body))


def _pieces(message: dict[str, Any]) -> Iterator[Piece]:
    speaker = speaker_of(message)
    yield from read_content(message.get("content"), speaker)
    for tool_call in mappings(message.get("tool_calls")):
        function = mapping(tool_call.get("function"))
        arguments = function.get("arguments", "")
        text = arguments if isinstance(arguments, str) else compact(arguments)
        yield Piece(f"{function.get('name', '')}{text}", speaker)


def _wish(call: Call) -> Wish:
    body = call.body
    named = (mapping(tool.get("function")) for tool in mappings(body.get("tools")) if tool.get("type") == "function")
    functions = {str(function.get("name")): mapping(function.get("parameters")) for function in named}
    choice = body.get("tool_choice")
    only = mapping(mapping(choice).get("function")).get("name")
    return Wish(
        chosen(functions, only=only, forbidden=choice == "none"),
        _schema(mapping(body.get("response_format"))),
        whole(body.get("max_completion_tokens"), whole(body.get("max_tokens"), 0)),
        call.behaviour.words,
    )


def _schema(wanted: dict[str, Any]) -> Schema | None:
    if wanted.get("type") == "json_object":
        return {"properties": {"answer": {"type": "string"}}}
    is_schema = wanted.get("type") == "json_schema"
    return mapping(mapping(wanted.get("json_schema")).get("schema")) if is_schema else None


def _effort(call: Call) -> Any:
    """OpenAI's effort, or OpenRouter's."""
    return call.body.get("reasoning_effort") or mapping(call.body.get("reasoning")).get("effort")


def _inputs(given: Any) -> list[Any]:
    """The texts, or lists of tokens, that are to be embedded."""
    if isinstance(given, list) and given and not all(isinstance(one, int) for one in given):
        return [one for one in given if isinstance(one, (str, list))]
    if not given or not isinstance(given, (str, list)):
        raise RefusedError(400, "input: a text, or a list of texts or of tokens, is required")
    return [given]


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
