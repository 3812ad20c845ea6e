"""Looking for what is needed in JSON, without reading all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .usage import UNKNOWN

HEAD, TAIL = 4 * 1024, 64 * 1024  # bytes: where long JSON has its ids and its usage
LARGE = 256 * 1024  # bytes: longer JSON is searched, not parsed

USAGE = re.compile(rb'"(usage(?:_?[mM]etadata)?)"\s*:\s*(?=\{)')
_STRING = rb'\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"'
_SAID = re.compile(rb'"(?:content|text|thinking|reasoning(?:_content)?|refusal|partial_json|arguments)"' + _STRING)
_DELTA = re.compile(rb'"delta"' + _STRING)
_ASKED = re.compile(rb'"(?:content|text|input|instructions|system|prompt)"' + _STRING)
_IDS = re.compile(rb'"(id|responseId)"\s*:\s*"([^"\\]{1,500})"')
_MODELS = re.compile(rb'"(model|modelVersion)"\s*:\s*"([^"\\]{1,500})"')
_FORM_MODEL = re.compile(rb'name="model"\r\n\r\n([^\r\n]{1,500})')
_PATH_MODEL = re.compile(r"models/([^/:]+)")
_CHARACTERS = 4  # of a token, about
_decode = json.JSONDecoder().raw_decode


def parsed(data: bytes) -> Mapping[str, Any]:
    """The JSON object in `data`; an empty one, if there is none."""
    try:
        fields = json.loads(data.decode()) if data else {}
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def fields_in(body: bytes) -> Mapping[str, Any]:
    """The fields of an answer in JSON. Where that is long, or breaks off, they are searched for."""
    if (len(body) <= LARGE or len(USAGE.findall(body)) > 1) and (whole := parsed(body)):
        return whole
    fields: dict[str, Any] = {}
    for found in (_IDS.search(body, 0, HEAD), _MODELS.search(body, 0, HEAD), _MODELS.search(body, -HEAD)):
        if found:
            fields[found[1].decode()] = found[2].decode("utf-8", "replace")
    for found in USAGE.finditer(body):
        try:
            fields[found[1].decode()], _ = _decode(body[found.end() :][:TAIL].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
    return fields


def model_in(path: str, content: bytes) -> str:
    """The model that a request names, in its path or its body."""
    if found := _PATH_MODEL.search(path):
        return found[1]
    if found_in := _MODELS.search(content):
        return found_in[2].decode("utf-8", "replace")
    form = _FORM_MODEL.search(content)
    return form[1].decode("utf-8", "replace") if form else UNKNOWN


def asked_in(content: bytes) -> int:
    """About how many tokens a request asks."""
    return tokens_of(sum(map(_length, _ASKED.findall(content))))


def said_in(data: bytes, *, is_delta: bool = False) -> int:
    """How many characters an answer, or an event of one, says.

    Args:
        data: The answer or event.
        is_delta: Whether only what is new counts: the Responses API repeats it all in later events.
    """
    said = 0
    for text in (_DELTA if is_delta else _SAID).findall(data):
        said += _length(text) if b"\\" in text else len(text)
    return said


def tokens_of(characters: int) -> int:
    """About how many tokens a text is."""
    return -(-characters // _CHARACTERS)


def _length(text: bytes) -> int:
    """The length of a JSON string in UTF-8."""
    try:
        return len(json.loads(b'"%s"' % text).encode("utf-8", "replace"))
    except ValueError:
        return len(text)
