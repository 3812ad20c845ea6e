"""Anthropic: messages, and the counting of their tokens."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute

from .answer import Answer, Wish, answer, chosen
from .prompt import (
    Counts,
    Piece,
    Prompt,
    Speaker,
    compact,
    mapping,
    mappings,
    mark_of,
    read_content,
    read_tools,
    reasoning_tokens,
    thought,
    whole,
)
from .serving import Call, Provider, RefusedError, Reply, event

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_SERVER_TOOLS = {"web_search": "web_search_requests", "web_fetch": "web_fetch_requests"}
_NO_FUNCTIONS = ("web_search", "web_fetch", "code_execution", "tool_search", "mcp_toolset")


class Anthropic(Provider):
    """Anthropic."""

    name = "anthropic"
    id_header = "request-id"

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        return [
            self.route("/v1/messages", self._messages),
            self.route("/v1/messages/count_tokens", self._count_tokens),
        ]

    def key_of(self, request: Request) -> str:
        """The key that a request shows, or an empty text."""
        return request.headers.get("x-api-key", "").strip() or super().key_of(request)

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        """A refusal in Anthropic's shape."""
        kind = _KINDS.get(refused.status, "api_error" if refused.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": request_id}

    def error_event(self, refused: RefusedError, request_id: str) -> bytes:
        """A refusal in the middle of a stream."""
        return event(self.error(refused, request_id))

    def _count_tokens(self, call: Call) -> Reply:
        _check_version(call)
        call.text("model")
        return self.json(call, {"input_tokens": _prompt(call).tokens})

    def _messages(self, call: Call) -> Reply:
        _check_version(call)
        model, prompt = call.text("model"), _prompt(call)
        limit = whole(call.body.get("max_tokens"), 0)
        if limit < 1:
            raise RefusedError(400, "max_tokens: a whole number from 1 is required")
        said = answer(prompt, _wish(call, limit))
        thinking = _thinking(call, model)
        counts = prompt.counts(prompt.marked(warm=call.behaviour.warm), output=said.tokens, reasoning=thinking)
        usage = _usage(call, prompt, counts)
        message = _message(model, said, _blocks(said, thinking))
        if call.body.get("stream") is True:
            return self.stream(call, _events(call, message, usage))
        return self.json(call, call.with_usage(message, usage))


def _check_version(call: Call) -> None:
    if not call.request.headers.get("anthropic-version"):
        raise RefusedError(400, "anthropic-version: the header is required, such as 2023-06-01")


def _message(model: str, said: Answer, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"msg_01{uuid.uuid4().hex[:22]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": "tool_use" if said.call else "max_tokens" if said.is_cut else "end_turn",
        "stop_sequence": None,
    }


def _blocks(said: Answer, thinking: int) -> list[dict[str, Any]]:
    thoughts = {"type": "thinking", "thinking": thought(thinking), "signature": "c3RhbmQtaW4="}
    if said.call:
        called = {"name": said.call.name, "input": said.call.arguments}
        block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_01{uuid.uuid4().hex[:22]}", **called}
    else:
        block = {"type": "text", "text": said.text}
    return [thoughts, block] if thinking else [block]


def _usage(call: Call, prompt: Prompt, counts: Counts) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "input_tokens": counts.input,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "cache_creation": _by_lifetime(prompt, counts.written),
        "output_tokens": counts.completion,
        "service_tier": "standard",
    }
    if counts.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    kinds = [str(tool.get("type")) for tool in mappings(call.body.get("tools"))]
    used = {name: sum(kind.startswith(prefix) for kind in kinds) for prefix, name in _SERVER_TOOLS.items()}
    return usage | ({"server_tool_use": used} if any(used.values()) else {})


def _by_lifetime(prompt: Prompt, written: int) -> dict[str, int]:
    is_long = prompt.last_mark == "1h"
    return {
        "ephemeral_5m_input_tokens": 0 if is_long else written,
        "ephemeral_1h_input_tokens": written if is_long else 0,
    }


def _events(call: Call, message: dict[str, Any], usage: dict[str, Any]) -> Iterator[bytes]:
    begun = message | {"content": [], "stop_reason": None}
    first = {key: value for key, value in usage.items() if not key.startswith(("output_tokens_", "server_"))}
    yield event({"type": "message_start", "message": call.with_usage(begun, first | {"output_tokens": 1})})
    for index, block in enumerate(message["content"]):
        start, deltas = _block_events(block)
        yield event({"type": "content_block_start", "index": index, "content_block": start})
        if not index:
            yield event({"type": "ping"})
        for delta in deltas:
            yield event({"type": "content_block_delta", "index": index, "delta": delta})
        yield event({"type": "content_block_stop", "index": index})
    total = {key: value for key, value in usage.items() if key not in {"cache_creation", "service_tier"}}
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield event(call.with_usage({"type": "message_delta", "delta": ended}, total))
    yield event({"type": "message_stop"})


def _block_events(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a block starts with, and what is added to it."""
    if block["type"] == "thinking":
        added = {"type": "thinking_delta", "thinking": block["thinking"]}
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return block | {"thinking": "", "signature": ""}, [added, signed]
    if block["type"] == "tool_use":
        arguments = compact(block["input"])
        parts = ("", arguments[:2], arguments[2:])
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    words = Answer(block["text"]).chunks
    return block | {"text": ""}, [{"type": "text_delta", "text": word} for word in words]


def _thinking(call: Call, model: str) -> int:
    asked = mapping(call.body.get("thinking"))
    is_on = asked.get("type") in ("enabled", "adaptive") or ("thinking" in model and not asked)
    effort = mapping(call.body.get("output_config")).get("effort")
    return reasoning_tokens(effort, asked.get("budget_tokens")) if is_on else 0


def _prompt(call: Call) -> Prompt:
    pieces = [*read_tools(call.body.get("tools")), *read_content(call.body.get("system"), "system")]
    for message in mappings(call.items("messages")):
        speaker: Speaker = "assistant" if message.get("role") == "assistant" else "user"
        pieces += _pieces(message.get("content"), speaker)
    return Prompt(pieces, marks_end=mark_of(call.body))


def _pieces(content: Any, speaker: Speaker) -> Iterator[Piece]:
    if not isinstance(content, list):
        yield from read_content(content, speaker)
        return
    for block in mappings(content):
        if block.get("type") == "tool_use":
            yield Piece(f"{block.get('name', '')}{compact(block.get('input'))}", speaker, mark_of(block))
        elif block.get("type") == "tool_result":
            said = "".join(piece.text for piece in read_content(block.get("content"), "tool"))
            yield Piece(said, "tool", mark_of(block))
        else:
            yield from read_content(block, speaker)


def _wish(call: Call, limit: int) -> Wish:
    named = [tool for tool in mappings(call.body.get("tools")) if not str(tool.get("type")).startswith(_NO_FUNCTIONS)]
    functions = {str(tool.get("name")): mapping(tool.get("input_schema")) for tool in named}
    choice = mapping(call.body.get("tool_choice"))
    wanted = mapping(mapping(call.body.get("output_config")).get("format"))
    return Wish(
        chosen(functions, only=choice.get("name"), forbidden=choice.get("type") == "none"),
        mapping(wanted.get("schema")) if wanted.get("type") == "json_schema" else None,
        limit,
        call.behaviour.words,
    )
