"""Reading requests: what every endpoint of the local metering API shares."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from ..errors import APIError, Problem, ValidationError
from ..event import MAX_BODY_BYTES, MOST_NAMED, micros, parse_timestamp, shown
from .store import Selection

T = TypeVar("T")
_TOO_LARGE = APIError(413, "PAYLOAD_TOO_LARGE", "the body is over 5 MiB: send fewer events in a request")


def ledger_of(request: Request) -> str:
    """The ledger of a request's API key. The key itself is kept nowhere.

    Raises:
        APIError: There is no key.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise APIError(401, "UNAUTHORIZED", "send your API key as the header `Authorization: Bearer <key>`")
    return hashlib.sha256(key.strip().encode()).hexdigest()[:16]


def business_of(ledger: str) -> str:
    """The business id in answers."""
    return f"bus_{ledger}"


async def body_of(request: Request) -> bytes:
    """The body of a request that says it is JSON.

    Raises:
        ValidationError: Another content type.
        APIError: It is over 5 MiB (by its Content-Length: before it is read), or does not come in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        reason = f"the content type is {shown(kind)}: send the header `Content-Type: application/json`"
        raise ValidationError([Problem("", reason)])
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _TOO_LARGE
    seconds = request.app.state.body_timeout
    try:
        async with _limit(seconds):
            return await _read(request)
    except TimeoutError:
        reason = f"the body did not come within {seconds:g} s: send it at once"
        raise APIError(408, "REQUEST_TIMEOUT", reason) from None


async def _read(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _TOO_LARGE
        chunks.append(chunk)
    return b"".join(chunks)


def _limit(seconds: float) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # no event loop: the whole body is there already
        return nullcontext()
    return asyncio.timeout(seconds)


async def json_of(request: Request) -> Any:
    """The decoded JSON body of a request. Errors as `body_of`, and of JSON that is none."""
    return decoded(await body_of(request))


def decoded(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValidationError: It is not JSON in UTF-8, or an object has a key twice, so that a reader would see only one.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_object)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        reason = f"{half} is half of a surrogate pair, which is no text in UTF-8"
        raise ValidationError([Problem("", reason)]) from None
    except RecursionError:
        raise ValidationError([Problem("", "the JSON is nested too deep")]) from None
    except ValueError as error:
        raise ValidationError([Problem("", f"the body is not JSON: {error}")]) from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return made


def fields_of(body: Any, known: Iterable[str], required: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a JSON object.

    Raises:
        ValidationError: It is no object, or has an unknown field, or lacks one.
    """
    if not isinstance(body, dict):
        raise ValidationError([Problem("", f"{shown(body)} is not a JSON object")])
    names = tuple(known)
    unknown = islice((key for key in body if key not in names), MOST_NAMED)
    problems = [Problem(f"/{key}", f"unknown field: the fields are {', '.join(names)}") for key in unknown]
    problems += [Problem(f"/{name}", "missing") for name in required if name not in body]
    if problems:
        raise ValidationError(problems)
    return body


def query_of(request: Request, *known: str) -> dict[str, str]:
    """The query parameters.

    Raises:
        ValidationError: One is unknown, or stands twice.
    """
    query: dict[str, str] = {}
    for name, value in parse_qsl(request.url.query, keep_blank_values=True):
        if name not in known:
            raise bad_query(name, f"unknown parameter: the parameters are {', '.join(known) or 'none'}")
        if name in query:
            raise bad_query(name, "stands twice: give it once")
        query[name] = value
    return query


def bad_query(name: str, reason: str) -> ValidationError:
    """The error of a query parameter."""
    return ValidationError([Problem(f"/{name}", reason, "INVALID_QUERY_PARAMS")])


def choice(query: Mapping[str, str], name: str, choices: Mapping[str, T], default: T) -> T:
    """The value of a parameter that has few."""
    if name not in query:
        return default
    if query[name] not in choices:
        raise bad_query(name, f"{shown(query[name])} is none of {', '.join(choices)}")
    return choices[query[name]]


def moment(query: Mapping[str, str], name: str) -> datetime | None:
    """The time in a parameter."""
    try:
        return parse_timestamp(query[name]) if name in query else None
    except ValueError as error:
        raise bad_query(name, str(error)) from None


def selection_of(query: Mapping[str, str]) -> Selection:
    """Which events the parameters customer_id, event_name, start and end select."""
    start, end = (moment(query, name) for name in ("start", "end"))
    return Selection(
        query.get("customer_id"),
        query.get("event_name"),
        None if start is None else micros(start),
        None if end is None else micros(end),
    )


def page_of(items: Iterable[T], query: Mapping[str, str]) -> list[T]:
    """The page that page_size and page_number ask for."""
    size = _number(query, "page_size", default=10, least=1, most=100)
    number = _number(query, "page_number", default=0, least=0, most=10**9)
    return list(islice(items, number * size, (number + 1) * size))


def _number(query: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise bad_query(name, f"{shown(text)} is not a whole number from {least} to {most:,}")
    return int(text)
