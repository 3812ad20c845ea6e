"""Serve an application on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import ConfigurationError, MeterprintError
from ..event import shown
from .live import DROP

HOST = "127.0.0.1"
DEFAULT_PORT = 4141
_BACKLOG = 2048
_MOST_HEADERS = 256 * 1024  # bytes of a request that are not its body
_MOST_LEFT = 16 * 1024 * 1024  # bytes of a body that go by unread once its request was answered
_LAST_MOMENTS = 1.0  # seconds for what is under way when the server stops
# An offer to speak another protocol is ignored: the parser would take the body for that protocol's.
_UPGRADE = re.compile(rb"(\n)Upgrade:", re.IGNORECASE)


class Server:
    """An ASGI application on a port of this machine, from `with` on until its end.

    Args:
        app: The application. Its `state.stop`, if there is one, is called first at the end.
        port: The port; 0 takes any that is free.
        option: The command-line option that sets the port, for the error message.
        host: The address to listen on: by default only this machine can reach it.
        names: Further names under which it may be asked, beside addresses and `localhost`.
        headers_timeout: Seconds until the headers of a request must be there; then the connection is cut.

    Raises:
        ConfigurationError: The port is in use, or may not be used.
    """

    def __init__(
        self,
        app: Any,
        port: int = 0,
        *,
        option: str = "--port",
        host: str = HOST,
        names: Sequence[str] = (),
        headers_timeout: float = 10.0,
    ) -> None:
        self._socket = _bound(host, port, option)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        config = uvicorn.Config(
            HostCheck(app, names),
            http=type("Protocol", (_Protocol,), {"headers_timeout": headers_timeout}),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,
            backlog=_BACKLOG,
        )
        self._stop: Callable[[], None] = getattr(getattr(app, "state", None), "stop", lambda: None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise MeterprintError(f"the server on port {self.port} did not start: its log says why")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


class HostCheck:
    """Answers only requests that name the server by an address, by `localhost`, or by a name that was allowed.

    A page of another site that lets its own name point here (DNS rebinding) is refused by that name; under an address
    it is no page of another site.

    Args:
        app: The application.
        names: The names that are allowed.
    """

    def __init__(self, app: Any, names: Sequence[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection, as ASGI has it."""
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        host = ", ".join(hosts)  # of two, each could be believed by somebody
        if scope["type"] != "http" or self._allows(host):
            await self._app(scope, receive, send)
            return
        message = f"{shown(host)} is no name of this server: use its address, or allow the name with --allow-host"
        await JSONResponse({"code": "INVALID_REQUEST_PARAMETERS", "message": message}, 400)(scope, receive, send)

    def _allows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(ip_address(name))
        except ValueError:
            return False


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 that cuts off who sends no request, or one without end, and lets an application break the connection."""

    headers_timeout: float
    _cut: asyncio.TimerHandle | None = None
    _spare = 0  # bytes since the last request that are no body
    _is_in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        if not self._is_in_body:
            head = data[: data.find(b"\r\n\r\n")]  # the rest may be a long body
            if _UPGRADE.search(head):
                data = _UPGRADE.sub(rb"\1X-Offer:", head) + data[len(head) :]
        self._spare += len(data)
        super().data_received(data)
        if self._spare > (_MOST_LEFT if self._is_in_body and self.cycle.response_complete else _MOST_HEADERS):
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete:
            self._spare -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._spare = 0
        self._is_in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # no later request is waiting for its answer
            self._wait_for_headers()  # or for the rest of the body; what comes puts off uvicorn's own timeout for ever

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_LAST_MOMENTS, self.transport.abort)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {DROP: self.transport.abort}
        self.scope["extensions"] = extensions
        self._wait_for_headers()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        self._is_in_body = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._stop_waiting()
        self._cut = self.loop.call_later(self.headers_timeout, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._cut:
            self._cut.cancel()
            self._cut = None


def _bound(host: str, port: int, option: str) -> socket.socket:
    # asyncio turns Nagle off only where the protocol is named; left on, every answer waits 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigurationError(f"{host} is no address of this machine: name one of its own") from error
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigurationError(
            f"port {port} {why}: choose another with {option}, for example {option} {port + 1}"
        ) from error
    return listener
