"""The HTTP client of an SDK, made so that the answers that it brings are metered."""

from __future__ import annotations

import logging
import os
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any, TypeVar
from weakref import WeakSet

from .answer import Answer
from .tap import Call, Tap

C = TypeVar("C")

logger = logging.getLogger("meterprint")

_open: WeakSet[Passage] = WeakSet()  # a stream that is dropped within a cycle lives until the garbage is collected


def is_http_client(client: object) -> bool:
    """Whether something is a client of httpx or httpx2."""
    package = _package_of(type(client))
    return package is not None and isinstance(client, (package.Client, package.AsyncClient))


def metered(client: C, tap: Tap) -> C:
    """A client like the given one, whose answers are metered.

    The two share everything: connections, cookies, hooks, and whether they are closed. A client that is metered
    already is metered anew instead of twice.
    """
    original: Any = client.original if isinstance(client, _Metered) else client
    kind: Any = type(original)
    copy: Any = object.__new__(_metered_type(kind))
    copy.__dict__ = original.__dict__
    copy.original, copy.tap = original, tap  # in slots, which are not shared
    metered_client: C = copy
    return metered_client


class _Metered:
    """What a metered client has beside the type of the original. `send` is what every way of a client ends in."""

    __slots__ = ()

    original: Any
    tap: Tap

    def __del__(self) -> None:
        """Nothing: connections that are shared are closed by the original, at its own end."""


class _Sync(_Metered):
    __slots__ = ()

    def send(self, request: Any, **options: Any) -> Any:
        send: Any = super().send  # type: ignore[misc]
        call = self.tap.begin(request, is_stream=bool(options.get("stream")))
        if call is None:
            return send(request, **options)
        response = send(call.request, **options)
        if call.may_be_refused(response.status_code) and call.is_refused(response.read()):
            response.close()
            response = send(call.original, **options)
        return _watched(call, response)


class _Async(_Metered):
    __slots__ = ()

    async def send(self, request: Any, **options: Any) -> Any:
        send: Any = super().send  # type: ignore[misc]
        call = self.tap.begin(request, is_stream=bool(options.get("stream")))
        if call is None:
            return await send(request, **options)
        response = await send(call.request, **options)
        if call.may_be_refused(response.status_code) and call.is_refused(await response.aread()):
            await response.aclose()
            response = await send(call.original, **options)
        return _watched(call, response)


@cache
def _metered_type(kind: Any) -> Any:
    """The subclass of a client's type whose clients are metered."""
    how = _Async if hasattr(kind, "aclose") else _Sync
    names = {"__slots__": ("original", "tap"), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (how, kind), names)


def _watched(call: Call, response: Any) -> Any:
    """A response whose answer is seen as it passes."""
    try:
        if call.request is not call.original:
            response.request = call.original
        if 200 <= response.status_code < 300:
            _watch(call, response)
    except Exception:
        logger.exception("a response was not metered")
    return response


def _watch(call: Call, response: Any) -> None:
    if response.is_closed:  # it was read to its end
        body = response.content
        answer = call.answer("" if body.startswith(b"{") else response.headers.get("content-type", ""))
        answer.feed(body)
        call.finish(answer, is_whole=True)
    else:
        answer = call.answer(response.headers.get("content-type", ""))
        sync, asynchronous = _tees(_package_of(type(response)))
        kind = asynchronous if hasattr(response.stream, "aclose") else sync
        response.stream = kind(response.stream, Passage(call, answer, response.headers))


def finish_open(recorder: object) -> None:
    """Record what is known of the answers that are still on their way, before their recorder ends."""
    for passage in list(_open):
        if passage.is_for(recorder):
            passage.finish(is_whole=False)


def _leave_to_parent() -> None:
    """In a forked child: what was on its way is the parent's, whatever this process closes at its end."""
    for passage in list(_open):
        passage.leave()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class Passage:
    """The bytes of an answer on their way to the caller.

    Args:
        call: What is answered.
        answer: Sees them.
        headers: The headers of the response.
    """

    def __init__(self, call: Call, answer: Answer, headers: Any) -> None:
        self._call = call
        self._answer = answer
        self._decode = _decoder(headers.get("content-encoding", ""))
        self._replaces = call.asks_usage and self._decode is not None
        if self._replaces:
            for name in ("content-encoding", "content-length"):
                headers.pop(name, None)
        _open.add(self)

    def feed(self, chunk: bytes) -> bytes:
        """What is to be handed on of a piece."""
        if self._decode is None:
            return chunk
        try:
            seen = self._answer.feed(chunk if self._decode is bytes else self._decode(chunk))
        except Exception:
            logger.exception("an answer cannot be read")
            self._decode = None
            return chunk
        return seen if self._replaces else chunk

    def rest(self) -> bytes:
        """What is to be handed on at the end."""
        try:
            rest = self._answer.rest()
        except Exception:
            logger.exception("an answer cannot be read")
            return b""
        return rest if self._replaces else b""

    def is_for(self, recorder: object) -> bool:
        """Whether a recorder will take its event."""
        return self._call.recorder is recorder

    def leave(self) -> None:
        """Record nothing."""
        self._call.leave()

    def finish(self, *, is_whole: bool) -> None:
        """Record the event, once."""
        _open.discard(self)
        self._call.finish(self._answer, is_whole=is_whole)


def _decoder(encoding: str) -> Callable[[bytes], bytes] | None:
    """What undoes a Content-Encoding; None if that cannot be done."""
    match encoding.strip().lower():
        case "" | "identity":
            return bytes
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
        case _:
            return None


class _Tee:
    """A stream that is seen as it passes."""

    def __init__(self, stream: Any, passage: Passage) -> None:
        self._stream = stream
        self._passage = passage

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                if seen := self._passage.feed(chunk):
                    yield seen
            if rest := self._passage.rest():
                yield rest
            self._passage.finish(is_whole=True)
        finally:
            self._passage.finish(is_whole=False)

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._passage.finish(is_whole=False)

    def __del__(self) -> None:
        self._passage.finish(is_whole=False)


class _AsyncTee:
    """The same for asyncio."""

    def __init__(self, stream: Any, passage: Passage) -> None:
        self._stream = stream
        self._passage = passage

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                if seen := self._passage.feed(chunk):
                    yield seen
            if rest := self._passage.rest():
                yield rest
            self._passage.finish(is_whole=True)
        finally:
            self._passage.finish(is_whole=False)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._passage.finish(is_whole=False)

    def __del__(self) -> None:
        self._passage.finish(is_whole=False)


@cache
def _tees(package: Any) -> tuple[Any, Any]:
    """The two as streams of httpx or httpx2."""
    sync: Any = type("Tee", (_Tee, package.SyncByteStream), {})
    return sync, type("AsyncTee", (_AsyncTee, package.AsyncByteStream), {})


def _package_of(kind: type) -> Any:
    """The module httpx or httpx2, whichever a type comes from; None if from neither."""
    roots = (base.__module__.partition(".")[0] for base in kind.__mro__)
    name = next((root for root in roots if root in {"httpx", "httpx2"}), "")
    return sys.modules.get(name)
