"""Serve an application on a loopback port, in a thread of its own."""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import Any, Self

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..errors import ConfigurationError, MeterprintError

HOST = "127.0.0.1"
DEFAULT_PORT = 4141


class Server:
    """An ASGI application on 127.0.0.1, from `with` on until its end.

    Args:
        app: The application.
        port: The port; 0 takes any that is free.
        option: The command-line option that sets the port, for the error message.

    Raises:
        ConfigurationError: The port is in use, or may not be used.
    """

    def __init__(self, app: Any, port: int = 0, *, option: str = "--port") -> None:
        self._socket = _bound(port, option)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        # A page of another site that lets its name point here (DNS rebinding) is refused by the name it asks for.
        guarded = TrustedHostMiddleware(app, allowed_hosts=[HOST, "localhost"], www_redirect=False)
        config = uvicorn.Config(
            guarded, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=2
        )
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
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def _bound(port: int, option: str) -> socket.socket:
    # asyncio turns Nagle off only where the protocol is named; left on, every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigurationError(
            f"port {port} {why}: choose another with {option}, for example {option} {port + 1}"
        ) from error
    return listener
