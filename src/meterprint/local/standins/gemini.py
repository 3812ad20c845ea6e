"""Gemini: generating content, counting tokens, embeddings."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute

from .answer import Answer, Schema, Wish, answer, chosen, vector
from .prompt import (
    Cached,
    Counts,
    Piece,
    Prompt,
    Speaker,
    compact,
    is_reasoning,
    mapping,
    mappings,
    read_content,
    read_tools,
    reasoning_tokens,
    thought,
    tokens,
    whole,
)
from .serving import Call, Provider, RefusedError, Reply, data

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_SERVER_TOOLS = ("googleSearch", "codeExecution", "urlContext")
_OF_SERVER_TOOL = 32  # tokens
_OF_CACHED_CONTENT = 2048  # tokens
_DIMENSIONS = 768
_MOST_DIMENSIONS = 4096
_MOST_CANDIDATES = 8
_END = "\r\n\r\n"
_CAPITAL = re.compile("[A-Z]")

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Generated:
    """Generated content, before it has the shape of an answer."""

    head: Payload
    answers: Sequence[Answer]
    counts: Counts
    thoughts: str


class Gemini(Provider):
    """Gemini."""

    name = "gemini"

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        return [self.route("/{version}/models/{model}:{method}", self._call)]

    def key_of(self, request: Request) -> str:
        """The key that a request shows, or an empty text."""
        return (request.headers.get("x-goog-api-key") or request.query_params.get("key", "")).strip()

    def error(self, refused: RefusedError, request_id: str) -> Payload:
        """A refusal in Gemini's shape."""
        status = _STATUSES.get(refused.status, "UNKNOWN")
        return {"error": {"code": refused.status, "message": refused.message, "status": status}}

    def error_event(self, refused: RefusedError, request_id: str) -> bytes:
        """A refusal in the middle of a stream."""
        return data(self.error(refused, request_id), _END)

    def _call(self, call: Call) -> Reply:
        methods: Mapping[str, Callable[[Call], Reply]] = {
            "generateContent": self._generate,
            "streamGenerateContent": self._stream,
            "countTokens": self._count,
            "embedContent": self._embed,
            "batchEmbedContents": self._embed_batch,
        }
        name = call.request.path_params["method"]
        if name not in methods:
            raise RefusedError(404, f"{name} is no method: they are {', '.join(methods)}")
        return methods[name](call)

    def _generate(self, call: Call) -> Reply:
        done = _generated(call)
        candidates = [
            _candidate(index, _parts(said, done.thoughts), _finish_reason(said))
            for index, said in enumerate(done.answers)
        ]
        answered = {"candidates": candidates, **done.head}
        return self.json(call, call.with_usage(answered, _usage(done.counts), "usageMetadata"))

    def _stream(self, call: Call) -> Reply:
        payloads = _payloads(call, _generated(call))
        if call.request.query_params.get("alt") == "sse":
            return self.stream(call, (data(payload, _END) for payload in payloads))
        return self.json(call, list(payloads))

    def _count(self, call: Call) -> Reply:
        inner = mapping(_get(call.body, "generateContentRequest")) or call.body
        size = _prompt(inner).tokens
        return self.json(call, {"totalTokens": size, "promptTokensDetails": _text_only(size)})

    def _embed(self, call: Call) -> Reply:
        values, used = _embedding(call.body)
        answered: Payload = {"embedding": {"values": values}}
        return self.json(call, call.with_usage(answered, _embedding_usage(used), "usageMetadata"))

    def _embed_batch(self, call: Call) -> Reply:
        results = [_embedding(one) for one in mappings(call.items("requests"))]
        answered: Payload = {"embeddings": [{"values": values} for values, _ in results]}
        used = sum(used for _, used in results)
        return self.json(call, call.with_usage(answered, _embedding_usage(used), "usageMetadata"))


def _generated(call: Call) -> _Generated:
    model, config = call.request.path_params["model"], _config(call.body)
    prompt, wish = _prompt(call.body), _wish(call, config)
    candidates = min(max(1, whole(_get(config, "candidateCount"), 1)), _MOST_CANDIDATES)
    answers = [answer(prompt, wish, candidate) for candidate in range(candidates)]
    thinking = mapping(_get(config, "thinkingConfig"))
    level, budget = _get(thinking, "thinkingLevel"), _get(thinking, "thinkingBudget")
    size = reasoning_tokens(level, budget) if is_reasoning(model) else 0
    counts = prompt.counts(
        _cached(call, prompt, model),
        output=sum(said.tokens for said in answers),
        reasoning=size * candidates,
        tool_input=_OF_SERVER_TOOL * _server_tools(call.body),
    )
    head = {"modelVersion": model, "responseId": uuid.uuid4().hex[:22]}
    return _Generated(head, answers, counts, thought(size) if _get(thinking, "includeThoughts") is True else "")


def _cached(call: Call, prompt: Prompt, model: str) -> Cached:
    if _get(call.body, "cachedContent"):
        return Cached(read=_OF_CACHED_CONTENT)
    return prompt.automatic(model, warm=call.behaviour.warm)


def _payloads(call: Call, done: _Generated) -> Iterator[Payload]:
    so_far = 0
    for index, said in enumerate(done.answers):
        parts = list(_streamed(said, done.thoughts))
        text = ""
        for number, part in enumerate(parts):
            is_last = number + 1 == len(parts)
            text += "" if part.get("thought") else part.get("text", "")
            output = so_far + (said.tokens if is_last else tokens(text) if text else 0)
            candidate = _candidate(index, [part], _finish_reason(said) if is_last else None)
            usage = _usage(done.counts, output)
            yield call.with_usage({"candidates": [candidate], **done.head}, usage, "usageMetadata")
        so_far += said.tokens


def _streamed(said: Answer, thoughts: str) -> Iterator[Payload]:
    for part in _parts(said, thoughts):
        if "text" in part and "thought" not in part:
            yield from ({"text": word} for word in said.chunks)
        else:
            yield part


def _parts(said: Answer, thoughts: str) -> list[Payload]:
    thinking: list[Payload] = [{"text": thoughts, "thought": True}] if thoughts else []
    if said.call:
        return [*thinking, {"functionCall": {"name": said.call.name, "args": said.call.arguments}}]
    return [*thinking, {"text": said.text}]


def _candidate(index: int, parts: list[Payload], finish: str | None) -> Payload:
    candidate: Payload = {"content": {"parts": parts, "role": "model"}, "index": index}
    return candidate | ({"finishReason": finish} if finish else {})


def _finish_reason(said: Answer) -> str:
    return "MAX_TOKENS" if said.is_cut else "STOP"


def _usage(counts: Counts, output: int | None = None) -> Payload:
    visible = counts.output if output is None else output
    usage: Payload = {
        "promptTokenCount": counts.prompt,
        "candidatesTokenCount": visible,
        "totalTokenCount": counts.prompt + visible + counts.reasoning + counts.tool_input,
        "promptTokensDetails": _text_only(counts.prompt),
    }
    if counts.cached:
        usage["cachedContentTokenCount"] = counts.cached
        usage["cacheTokensDetails"] = _text_only(counts.cached)
    if counts.tool_input:
        usage["toolUsePromptTokenCount"] = counts.tool_input
        usage["toolUsePromptTokensDetails"] = _text_only(counts.tool_input)
    return usage | ({"thoughtsTokenCount": counts.reasoning} if counts.reasoning else {})


def _text_only(size: int) -> list[Payload]:
    return [{"modality": "TEXT", "tokenCount": size}]


def _prompt(body: Payload) -> Prompt:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise RefusedError(400, "contents: a list with something in it is required")
    pieces = [*read_tools(body.get("tools")), *_pieces(_get(body, "systemInstruction"), "system")]
    for content in mappings(contents):
        pieces += _pieces(content, "assistant" if content.get("role") == "model" else "user")
    size = _OF_CACHED_CONTENT * 4 if _get(body, "cachedContent") else 0
    return Prompt([Piece(" " * size, "system"), *pieces])


def _pieces(content: Any, speaker: Speaker) -> Iterator[Piece]:
    for part in mappings(mapping(content).get("parts")):
        called, result = mapping(_get(part, "functionCall")), mapping(_get(part, "functionResponse"))
        if called:
            yield Piece(f"{called.get('name', '')}{compact(called.get('args') or {})}", speaker)
        elif result:
            yield Piece(compact(result.get("response")), "tool")
        elif part.get("thought") is True:
            yield Piece("", speaker)
        else:
            yield from read_content(part, speaker)


def _wish(call: Call, config: Payload) -> Wish:
    tools = mappings(call.body.get("tools"))
    declared = [one for tool in tools for one in mappings(_get(tool, "functionDeclarations"))]
    functions = {str(one.get("name")): _parameters(one) for one in declared}
    calling = mapping(_get(mapping(_get(call.body, "toolConfig")), "functionCallingConfig"))
    allowed = _get(calling, "allowedFunctionNames")
    return Wish(
        chosen(
            functions,
            only=next(iter(allowed), None) if isinstance(allowed, list) else None,
            forbidden=calling.get("mode") == "NONE",
        ),
        _schema(config),
        whole(_get(config, "maxOutputTokens"), 0),
        call.behaviour.words,
    )


def _parameters(declared: Payload) -> Schema:
    return mapping(_get(declared, "parametersJsonSchema") or declared.get("parameters"))


def _schema(config: Payload) -> Schema | None:
    if _get(config, "responseMimeType") != "application/json":
        return None
    schema = _get(config, "responseJsonSchema") or _get(config, "responseSchema")
    return mapping(schema) or {"properties": {"answer": {"type": "string"}}}


def _config(body: Payload) -> Payload:
    return mapping(_get(body, "generationConfig"))


def _server_tools(body: Payload) -> int:
    return sum(_get(tool, name) is not None for tool in mappings(body.get("tools")) for name in _SERVER_TOOLS)


def _embedding(body: Payload) -> tuple[list[float], int]:
    text = "".join(piece.text for piece in _pieces(body.get("content"), "user"))
    config = mapping(_get(body, "embedContentConfig"))
    wanted = _get(body, "outputDimensionality") or _get(config, "outputDimensionality")
    return vector(text, min(max(1, whole(wanted, _DIMENSIONS)), _MOST_DIMENSIONS)), tokens(text)


def _embedding_usage(used: int) -> Payload:
    return {"promptTokenCount": used, "totalTokenCount": used}


def _get(body: Payload, name: str) -> Any:
    """A field by its name in JSON, or by the one with underscores, which Gemini takes too."""
    value = body.get(name)
    return body.get(_CAPITAL.sub(lambda found: f"_{found[0].lower()}", name)) if value is None else value
