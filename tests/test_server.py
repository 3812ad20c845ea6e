"""The server that an application runs on: who may ask it, and on which address."""

import socket
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from meterprint import ConfigurationError
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:4141", "192.0.2.7", "meters.test"])
def test_a_request_by_an_address_or_an_allowed_name_is_answered(host: str) -> None:
    with Server(create_app(MemoryStore()), names=["meters.test"]) as server:
        assert httpx.get(f"{server.url}/local/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "a@b"])
def test_a_request_by_another_name_is_refused_as_a_page_of_another_site_sends_it(host: str) -> None:
    with Server(create_app(MemoryStore())) as server:
        answer = httpx.get(f"{server.url}/local/health", headers={"Host": host})
    assert answer.status_code == 400
    assert "is no name of this server: use its address, or allow the name with --allow-host" in answer.json()["message"]


def test_it_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    with Server(Starlette()) as server, Server(Starlette(), host="0.0.0.0") as public:
        addresses = [one._socket.getsockname()[0] for one in (server, public)]
    assert addresses == ["127.0.0.1", "0.0.0.0"]


def test_a_port_or_address_that_cannot_be_had_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is in use: choose another with --port"):
            Server(Starlette(), port)
    with pytest.raises(ConfigurationError, match="203.0.113.9 is no address of this machine"):
        Server(Starlette(), host="203.0.113.9")


def test_who_sends_no_request_in_time_is_cut_off_and_others_are_answered() -> None:
    with Server(create_app(MemoryStore()), headers_timeout=0.3) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(3)]
        idle[1].sendall(b"GET /local/health HTTP/1.1\r\nHost: loc")
        idle[2].sendall(b"GET /local/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /lo")
        assert httpx.get(f"{server.url}/local/health").status_code == 200
        assert idle[2].recv(12) == b"HTTP/1.1 200"
        for connection in idle:
            assert ended(connection)
            connection.close()


def ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return True


def test_a_body_that_does_not_come_is_answered_and_others_meanwhile_too() -> None:
    with (
        Server(create_app(MemoryStore(), body_timeout=0.3)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow,
    ):
        slow.sendall(
            b"POST /events/ingest HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        event: dict[str, Any] = {"event_id": "e", "customer_id": "c", "event_name": "n"}
        headers = {"Authorization": "Bearer k"}
        answer = httpx.post(f"{server.url}/events/ingest", json={"events": [event]}, headers=headers)
        assert answer.status_code == 200
        text = b""
        while not text.endswith(b"}"):  # head and body may come apart
            text += slow.recv(4096)
    assert text.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 0.3 s: send it at once" in text


def test_it_has_stand_ins_for_llm_providers() -> None:
    with Server(create_app(MemoryStore())) as server:
        answer = httpx.get(f"{server.url}/standins/openai/v1/models", headers={"Authorization": "Bearer any"})
    assert answer.status_code == 200
    assert answer.json()["object"] == "list"
