"""OpenAI's Responses API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any

from .answer import Answer, Schema, Wish, answer, chosen
from .prompt import (
    Counts,
    Piece,
    Prompt,
    compact,
    is_reasoning,
    mapping,
    mappings,
    read_content,
    read_tools,
    reasoning_tokens,
    speaker_of,
    whole,
)
from .serving import Call, RefusedError, event


def responses(call: Call) -> tuple[dict[str, Any], Iterator[bytes]]:
    """The response to a request, and the same as a stream."""
    model = call.text("model")
    prompt = Prompt(_pieces(call))
    said = answer(prompt, _wish(call))
    thinking = reasoning_tokens(mapping(call.body.get("reasoning")).get("effort")) if is_reasoning(model) else 0
    counts = prompt.counts(prompt.cached(model, warm=call.behaviour.warm), output=said.tokens, reasoning=thinking)
    output = _output(said, thinking=bool(thinking))
    begun = _begun(call, model)
    ended = begun | {
        "status": "incomplete" if said.is_cut else "completed",
        "completed_at": int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if said.is_cut else None,
        "output": output,
    }
    ended |= {"usage": call.behaviour.usage(_usage(counts))}
    return ended, _events(begun, ended, said)


def _begun(call: Call, model: str) -> dict[str, Any]:
    body = call.body
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": mapping(body.get("metadata")),
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": mapping(body.get("reasoning")).get("effort"), "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": mapping(body.get("text")).get("format") or {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": mappings(body.get("tools")),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def _usage(counts: Counts) -> dict[str, Any]:
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": counts.written},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }


def _output(said: Answer, *, thinking: bool) -> list[dict[str, Any]]:
    thought: dict[str, Any] = {"id": _id("rs"), "type": "reasoning", "summary": []}
    return [*([thought] if thinking else []), _item(said)]


def _item(said: Answer) -> dict[str, Any]:
    if said.call:
        return {
            "id": _id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": _id("call"),
            "name": said.call.name,
            "arguments": said.call.json,
        }
    status = "incomplete" if said.is_cut else "completed"
    return {"id": _id("msg"), "type": "message", "status": status, "role": "assistant", "content": [_part(said.text)]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _events(begun: dict[str, Any], ended: dict[str, Any], said: Answer) -> Iterator[bytes]:
    numbers = count()
    for payload in _payloads(begun, ended, said):
        yield event({"type": payload.pop("type"), "sequence_number": next(numbers), **payload})


def _payloads(begun: dict[str, Any], ended: dict[str, Any], said: Answer) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(ended["output"]):
        yield {"type": "response.output_item.added", "output_index": index, "item": _empty(item)}
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            yield from _text_payloads(place, said)
        elif item["type"] == "function_call":
            yield from _call_payloads(place, item)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{ended['status']}", "response": ended}


def _empty(item: dict[str, Any]) -> dict[str, Any]:
    if item["type"] == "message":
        return item | {"status": "in_progress", "content": []}
    return item | {"status": "in_progress", "arguments": ""} if item["type"] == "function_call" else item


def _text_payloads(place: dict[str, Any], said: Answer) -> Iterator[dict[str, Any]]:
    place = place | {"content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    for word in said.chunks:
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": said.text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _part(said.text)}


def _call_payloads(place: dict[str, Any], item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = item["arguments"]
    for part in (arguments[:2], arguments[2:]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": part}
    done = {"name": item["name"], "arguments": arguments}
    yield {"type": "response.function_call_arguments.done", **place, **done}


def _pieces(call: Call) -> Iterator[Piece]:
    yield from read_tools(call.body.get("tools"))
    yield from read_content(call.body.get("instructions"), "system")
    given = call.body.get("input")
    if not given or not isinstance(given, (str, list)):
        raise RefusedError(400, "input: a text, or a list of items, is required")
    if isinstance(given, str):
        yield Piece(given, "user")
    for item in mappings(given):
        yield from _item_pieces(item)


def _item_pieces(item: dict[str, Any]) -> Iterator[Piece]:
    match item.get("type"):
        case "function_call":
            yield Piece(f"{item.get('name', '')}{item.get('arguments', '')}", "assistant")
        case "function_call_output":
            output = item.get("output", "")
            yield from read_content(output if isinstance(output, (str, list)) else compact(output), "tool")
        case "reasoning":
            yield Piece("", "assistant")
        case _:
            yield from read_content(item.get("content"), speaker_of(item))


def _wish(call: Call) -> Wish:
    body = call.body
    named = (tool for tool in mappings(body.get("tools")) if tool.get("type") == "function")
    functions = {str(tool.get("name")): mapping(tool.get("parameters")) for tool in named}
    choice = body.get("tool_choice")
    return Wish(
        chosen(functions, only=mapping(choice).get("name"), forbidden=choice == "none"),
        _schema(mapping(mapping(body.get("text")).get("format"))),
        whole(body.get("max_output_tokens"), 0),
        call.behaviour.words,
    )


def _schema(wanted: dict[str, Any]) -> Schema | None:
    if wanted.get("type") == "json_object":
        return {"properties": {"answer": {"type": "string"}}}
    return mapping(wanted.get("schema")) if wanted.get("type") == "json_schema" else None
