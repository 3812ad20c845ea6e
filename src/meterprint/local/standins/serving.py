"""What the stand-ins of all providers share: keys, bodies, refusals, and how an answer is sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route

from .behaviour import HEADER, Behaviour, Faults
from .prompt import compact

_DROP = "meterprint.drop"  # the ASGI extension that breaks a connection
_MAX_BODY = 32 * 1024 * 1024
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_COME_AGAIN = (429, 503, 529)

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class RefusedError(Exception):
    """A request gets an error for its answer.

    Attributes:
        status: The HTTP status.
        message: Why.
        headers: What the answer's headers have beside.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Call:
    """One request that is to be answered.

    Attributes:
        request: The request.
        body: Its JSON object.
        behaviour: What else was asked for.
        request_id: The id that the answer's headers have.
    """

    request: Request
    body: dict[str, Any]
    behaviour: Behaviour
    request_id: str

    def text(self, key: str) -> str:
        """The text under a key of the body.

        Raises:
            RefusedError: There is none.
        """
        value = self.body.get(key)
        if not isinstance(value, str) or not value:
            raise RefusedError(400, f"{key}: a text is required")
        return value

    def items(self, key: str) -> list[Any]:
        """The list under a key of the body.

        Raises:
            RefusedError: There is none, or it is empty.
        """
        value = self.body.get(key)
        if not isinstance(value, list) or not value:
            raise RefusedError(400, f"{key}: a list with something in it is required")
        return value

    def with_usage(self, answer: dict[str, Any], usage: Mapping[str, Any], key: str = "usage") -> dict[str, Any]:
        """An answer with its usage, as it is to be reported."""
        reported = self.behaviour.usage(usage)
        return answer if reported is None else answer | {key: reported}


class Provider:
    """A stand-in; a subclass has the provider's paths and shapes.

    Args:
        faults: What has failed so far.
    """

    name: str
    id_header = "x-request-id"

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        raise NotImplementedError

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        """A refusal in the provider's shape."""
        raise NotImplementedError

    def error_event(self, refused: RefusedError, request_id: str) -> bytes:
        """A refusal in the middle of a stream."""
        return data(self.error(refused, request_id))

    def key_of(self, request: Request) -> str:
        """The key that a request shows, or an empty text."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def mount(self) -> Mount:
        """All its paths, under its name."""

        def unknown(call: Call) -> Reply:
            raise RefusedError(404, f"{call.request.method} {call.request.url.path}: no such endpoint here")

        return Mount(f"/{self.name}", routes=[*self.routes(), self.route("/{path:path}", unknown, *_METHODS)])

    def route(self, path: str, handler: Callable[[Call], Reply], *methods: str) -> Route:
        """An endpoint that a handler answers."""

        async def endpoint(request: Request) -> Reply:
            request_id = f"req_{uuid.uuid4().hex[:24]}"
            try:
                return handler(await self._admit(request, request_id))
            except RefusedError as refused:
                return self._refuse(refused, request_id)
            except RecursionError:
                return self._refuse(RefusedError(400, "the JSON is nested too deep"), request_id)

        return Route(path, endpoint, methods=list(methods) or ["POST"])

    def _refuse(self, refused: RefusedError, request_id: str) -> Reply:
        body = compact(self.error(refused, request_id)).encode("utf-8", "replace")
        headers = {self.id_header: request_id, **refused.headers}
        return Reply([body], media_type="application/json", status=refused.status, headers=headers)

    def json(self, call: Call, answer: Mapping[str, Any] | list[Any]) -> Reply:
        """An answer in one piece; in two, if it is to break off between them."""
        body = compact(answer).encode("utf-8", "replace")
        half = len(body) // 2 if call.behaviour.cut > 0 else len(body)
        pieces = [piece for piece in (body[:half], body[half:]) if piece]
        cut = min(call.behaviour.cut, 1)
        return self._reply(call, pieces, "application/json", replace(call.behaviour, cut=cut))

    def stream(self, call: Call, events: Iterable[bytes]) -> Reply:
        """An answer as server-sent events."""
        asked = call.behaviour
        if asked.error:
            refused = RefusedError(asked.error, _asked_for(asked))
            events = _until(events, asked.after, self.error_event(refused, call.request_id))
        return self._reply(call, events, "text/event-stream; charset=utf-8", asked)

    def _reply(self, call: Call, chunks: Iterable[bytes], media_type: str, behaviour: Behaviour) -> Reply:
        accepts = "gzip" in call.request.headers.get("accept-encoding", "")
        behaviour = replace(behaviour, gzip=behaviour.gzip and accepts)
        return Reply(chunks, media_type=media_type, headers={self.id_header: call.request_id}, behaviour=behaviour)

    async def _admit(self, request: Request, request_id: str) -> Call:
        if not self.key_of(request):
            raise RefusedError(401, "the request has no API key: any that is not empty is good here")
        raw = await _read(request)
        behaviour = self._behaviour(request, raw)
        body = _object(request, raw) if request.method == "POST" else {}
        streams = body.get("stream") is True or request.url.path.endswith(":streamGenerateContent")
        if behaviour.error and not (behaviour.after and streams):
            raise RefusedError(behaviour.error, _asked_for(behaviour), _come_again(behaviour))
        return Call(request, body, behaviour, request_id)

    def _behaviour(self, request: Request, raw: bytes) -> Behaviour:
        try:
            behaviour = Behaviour.parse(request.headers.get(HEADER, ""))
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        if behaviour.is_fault and not self._faults.is_due(behaviour.key or self._sign(request, raw), behaviour.times):
            return replace(behaviour, error=0, cut=-1)
        return behaviour

    def _sign(self, request: Request, raw: bytes) -> str:
        head = f"{request.url.path}\n{self.key_of(request)}\n".encode()
        return hashlib.sha256(head + raw).hexdigest()


def _asked_for(behaviour: Behaviour) -> str:
    return f"{HEADER} asked for status {behaviour.error}"


def _come_again(behaviour: Behaviour) -> dict[str, str]:
    if behaviour.error not in _COME_AGAIN:
        return {}
    seconds = behaviour.retry_after
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": f"{seconds * 1000:g}"}


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise RefusedError(413, "the body is over 32 MiB")
    return bytes(body)


def _object(request: Request, raw: bytes) -> dict[str, Any]:
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise RefusedError(400, "the body is not said to be JSON: send the header `Content-Type: application/json`")
    try:
        body = json.loads(raw, parse_constant=_no_number)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return body


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def data(payload: Any, end: str = "\n\n") -> bytes:
    """A server-sent event without a name."""
    return f"data: {compact(payload)}{end}".encode("utf-8", "replace")


def event(payload: Mapping[str, Any]) -> bytes:
    """A server-sent event that is named by its `type`."""
    return f"event: {payload['type']}\n".encode() + data(payload)


def _until(events: Iterable[bytes], number: int, last: bytes) -> Iterator[bytes]:
    for index, one in enumerate(events):
        if index == number:
            break
        yield one
    yield last


class Reply:
    """An answer, as an ASGI application that sends it.

    Args:
        chunks: Its body, piece by piece.
        media_type: Its Content-Type.
        status: Its status.
        headers: Its other headers.
        behaviour: How it is sent.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        *,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        behaviour: Behaviour | None = None,
    ) -> None:
        self._chunks = chunks
        self._status = status
        self._headers = {"content-type": media_type, **(headers or {})}
        self._behaviour = behaviour or Behaviour()
        if isinstance(chunks, list) and not self._behaviour.gzip:
            self._headers["content-length"] = str(sum(map(len, chunks)))
        if self._behaviour.gzip:
            self._headers |= {"content-encoding": "gzip", "vary": "accept-encoding"}

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Send it, as ASGI has it."""
        left = self._behaviour.cut
        if left == 0:
            await _drop(scope, receive)
            return
        chunks = iter(_compressed(self._chunks) if self._behaviour.gzip else self._chunks)
        if await self._is_left(receive):
            return
        await send({"type": "http.response.start", "status": self._status, "headers": self._raw_headers()})
        for index, chunk in enumerate(chunks):
            if index and await self._is_left(receive):
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if index + 1 == left:
                await _drop(scope, receive)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in self._headers.items()]

    async def _is_left(self, receive: Receive) -> bool:
        """Wait, if that was asked for; whether the client went away meanwhile."""
        if not self._behaviour.slow:
            return False
        try:
            async with asyncio.timeout(self._behaviour.slow / 1000):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        return True


async def _drop(scope: Mapping[str, Any], receive: Receive) -> None:
    """Break the connection; a server that has no means for it ends what did not complete."""
    if drop := (scope.get("extensions") or {}).get(_DROP):
        drop()
        while (await receive())["type"] != "http.disconnect":
            pass


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each chunk so that the client can read it at once."""
    packer = zlib.compressobj(wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
