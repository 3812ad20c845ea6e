"""Whatever comes in: it is refused with a reason, or cut off, and another client's events are taken meanwhile."""

import json
import logging
import re
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import parse_headers
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from commands import running
from meterprint.event import MAX_BODY_BYTES, format_timestamp, utc_now
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import MemoryStore

MEBIBYTE = 1024 * 1024
# What one side of a connection on this machine holds that the other has not read, and then some.
BUFFERS = 12 * MEBIBYTE
BODY_TIMEOUT = HEADERS_TIMEOUT = 3.0


class Answer(NamedTuple):
    status: int
    kind: str
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error that this is."""
        assert self.kind == "application/json", self
        found: dict[str, Any] = json.loads(self.body)
        assert isinstance(found["code"], str)
        assert found["message"]
        return found


def event(event_id: str, **metadata: Any) -> dict[str, Any]:
    return {"event_id": event_id, "customer_id": "cus_ada", "event_name": "call", "metadata": metadata}


def client_of(port: int, headers: dict[str, str], seconds: float) -> httpx.Client:
    """Without `verify`, it need not read the system's certificates first."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=seconds, verify=False)


@dataclass
class Other:
    """A client that goes on sending its own events, one after the other."""

    port: int
    taken: int = 0
    failed: list[str] = field(default_factory=list[str])
    stopping: bool = False

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {uuid4()}"}
        with client_of(self.port, headers, 10) as client:
            for number in count():
                try:
                    answer = client.post("/events/ingest", json={"events": [event(f"e{number}")]})
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    return
                if answer.status_code != 200 or answer.json()["ingested_count"] != 1:
                    self.failed.append(answer.text)
                self.taken += 1
                if self.stopping:
                    return
                time.sleep(0.01)


@contextmanager
def another_client(port: int) -> Iterator[None]:
    """Another client, whose events are all taken while the block runs, and after it."""
    other = Other(port)
    thread = threading.Thread(target=other.run, daemon=True)
    thread.start()
    yield
    before, other.stopping = other.taken, True
    thread.join(30)
    assert other.failed == []
    assert other.taken > before


class Target:
    """A served metering API, asked in ways that no client library would."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.key = str(uuid4())

    @property
    def headers(self) -> bytes:
        """The headers that every good request has."""
        return f"Host: localhost\r\nAuthorization: Bearer {self.key}\r\nContent-Type: application/json\r\n".encode()

    def request(self, line: str, body: bytes | None = None, headers: bytes = b"") -> bytes:
        """The bytes of a request that is good but for what it is given."""
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        return line.encode("latin-1") + b" HTTP/1.1\r\n" + self.headers + headers + length + b"\r\n" + (body or b"")

    def connect(self, seconds: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def answer(self, request: bytes) -> Answer | None:
        """What is answered to these bytes; None if the connection was cut instead."""
        with self.connect() as connection:
            with suppress(ConnectionError):  # it may be refused before it is all sent
                connection.sendall(request)
            return read(connection)

    def client(self) -> httpx.Client:
        """A client with the same key."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        return client_of(self.port, headers, 20)

    def stored(self) -> list[str]:
        with self.client() as client:
            return [one["event_id"] for one in client.get("/events?page_size=100").json()["items"]]


def read(connection: socket.socket) -> Answer | None:
    """The answer on a connection, or None if it ends before one."""
    with connection.makefile("rb") as stream:
        return next_answer(stream)


def next_answer(stream: BinaryIO) -> Answer | None:
    try:
        status = stream.readline()
        headers = parse_headers(stream)
        body = stream.read(int(headers.get("Content-Length", "0")))
    except ConnectionError:
        return None
    return Answer(int(status.split()[1]), headers.get_content_type(), body) if status else None


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("bad") / "ledger.db"
    with (
        closing(MemoryStore() if request.param == "memory" else SQLiteStore(path)) as store,
        Server(create_app(store, body_timeout=BODY_TIMEOUT), headers_timeout=HEADERS_TIMEOUT) as server,
    ):
        yield server.port


@pytest.fixture
def target(port: int, caplog: pytest.LogCaptureFixture) -> Iterator[Target]:
    """The API; while it is a test's target, another client is served and nothing fails within."""
    with another_client(port):
        yield Target(port)
    failures = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert failures == []


# What is no HTTP, or not this server's


MALFORMED = {
    "binary": bytes(range(256)),
    "TLS": bytes.fromhex("16030100a5010000a10303"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /local/health HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "no such method": b"FETCH /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "method in lower case": b"get /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "line feeds alone": b"GET /local/health HTTP/1.1\nHost: localhost\n\n",
    "a folded header": b"GET /local/health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "NUL in a header": b"GET /local/health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a space before the colon": b"GET /local/health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a space in the path": b"GET /events/a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in the path": b"GET /events/\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "UTF-8 in the path": b"GET /events/\xc3\xa5 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_refused_and_cut(target: Target, name: str) -> None:
    with target.connect() as connection:
        connection.sendall(MALFORMED[name])
        answer = read(connection)
        assert answer
        assert (answer.status, answer.body) == (400, b"Invalid HTTP request received.")
        assert ended(connection)


def ended(connection: socket.socket) -> bool:
    """Whether the connection ends, within its timeout."""
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


LENGTHS = {
    "negative": b"Content-Length: -5",
    "with a sign": b"Content-Length: +5",
    "not a number": b"Content-Length: five",
    "a list": b"Content-Length: 5, 5",
    "twice": b"Content-Length: 5\r\nContent-Length: 5",
    "twice, and not the same": b"Content-Length: 5\r\nContent-Length: 6",
    "beyond 64 bits": b"Content-Length: 99999999999999999999999999",
    "beside chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    "after chunks": b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    "unknown encoding": b"Transfer-Encoding: xchunked",
    "chunks not last": b"Transfer-Encoding: chunked, gzip",
    "chunks, then none": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "chunks behind a tab": b"Transfer-Encoding: \x0bchunked",
    "chunks behind a space": b"Transfer-Encoding : chunked",
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_that_two_servers_could_read_differently_is_refused_and_cut(target: Target, name: str) -> None:
    smuggled = b"0\r\n\r\n" + target.request("POST /events/ingest", b'{"events":[]}')
    line = b"POST /events/ingest HTTP/1.1\r\n"
    with target.connect() as connection:
        connection.sendall(line + target.headers + LENGTHS[name] + b"\r\n\r\n" + smuggled)
        answer = read(connection)
        assert answer
        assert answer.status == 400
        assert read(connection) is None  # what follows is not taken for a request


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"f" * 20 + b"\r\n", b"1\r\nxx\r\n", b"1\nx\n"])
def test_a_chunk_that_is_none_is_refused_and_cut(target: Target, chunk: bytes) -> None:
    request = b"POST /events/ingest HTTP/1.1\r\n" + target.headers + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    with target.connect() as connection:
        connection.sendall(request)
        answer = read(connection)
        assert answer is None or answer.status == 400
        assert ended(connection)


HOSTS = {
    "none": b"",
    "empty": b"Host:\r\n",
    "of a page that points its name here": b"Host: evil.example\r\n",
    "with a name before it": b"Host: localhost.evil.example\r\n",
    "twice": b"Host: localhost\r\nHost: evil.example\r\n",
    "twice, the other way round": b"Host: evil.example\r\nHost: localhost\r\n",
    "a list": b"Host: localhost, evil.example\r\n",
    "not ASCII": b"Host: localh\xf6st\r\n",
}


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("name", HOSTS)
def test_a_host_that_is_not_this_server_is_refused(target: Target, name: str, version: bytes) -> None:
    answer = target.answer(b"GET /local/health HTTP/" + version + b"\r\n" + HOSTS[name] + b"\r\n")
    assert answer
    assert answer.status == 400
    assert answer.error["code"] == "INVALID_REQUEST_PARAMETERS"


def test_a_client_of_http_1_0_is_answered_and_its_connection_closed(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(b"GET /local/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = read(connection)
        assert answer
        assert answer.status == 200
        assert ended(connection)


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.3"])
def test_an_offer_to_speak_another_protocol_is_ignored_and_the_body_is_read(target: Target, offer: str) -> None:
    """Java's client offers HTTP/2 with its first request."""
    body = json.dumps({"events": [event("e1")]}).encode()
    headers = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\nHTTP2-Settings: AAEAAEAA\r\n".encode()
    with target.connect() as connection:
        connection.sendall(target.request("POST /events/ingest", body, headers))
        answer = read(connection)
        assert answer
        assert answer.status == 200, answer
        connection.sendall(target.request("GET /events/e1"))
        answer = read(connection)
        assert answer
        assert answer.status == 200


# Paths and queries


PATHS = {
    "GET /dashboard/..%2fapp.py": 404,
    "GET /dashboard/..%2f..%2f..%2f..%2fetc%2fpasswd": 404,
    "GET /dashboard/../app.py": 404,
    "GET /dashboard/%2e%2e/app.py": 404,
    "GET /dashboard//etc/passwd": 404,
    "GET /dashboard/%2fetc%2fpasswd": 404,
    "GET /dashboard/..%5capp.py": 404,
    "GET /dashboard/..": 404,
    "GET /dashboard/.": 404,
    "GET /dashboard/%00": 404,
    "GET /dashboard/index.html%00.png": 404,
    "GET /dashboard/%ff": 404,
    "GET /dashboard/" + "a" * 300: 404,
    "GET /dashboard/" + "a" * 5_000: 404,
    "GET /events/%00": 404,
    "GET /events/%ff%fe": 404,
    "GET /events/%ed%a0%80": 404,
    "GET /events/%zz": 404,
    "GET /events/%": 404,
    "GET /events/" + "%41" * 5_000: 404,
    "GET /meters/%0d%0aX-Injected:%20yes": 404,
    "GET /meters/../events": 404,
    "GET /meters/%ff": 404,
    "GET /local/meters/%00/usage": 404,
    "GET /subscriptions/%ff/usage-history": 404,
    "GET /nowhere": 404,
    "GET //": 404,
    "OPTIONS *": 404,
    "TRACE /events": 405,
    "DELETE /events": 405,
    "PROPFIND /meters": 405,
    "PUT /events/ingest": 405,
    "POST /local/health": 405,
    "GET /events?customer_id=%00": 200,
    "GET /events?customer_id=%ff": 200,
    "GET /events?customer_id=%ed%a0%80": 200,
    "GET /events?customer_id=a&customer_id=b": 400,
    "GET /events?page_size=1&page_size=1": 400,
    "GET /events?%ff=1": 400,
    "GET /events?%00": 400,
    "GET /events?a;b": 400,
    "GET /events?page_size=0": 400,
    "GET /events?page_size=1e3": 400,
    "GET /events?page_size=" + "9" * 5_000: 400,
    "GET /events?page_number=%D9%A1": 400,
    "GET /events?page_number=-1": 400,
    "GET /events?page_number=999999999999999999999": 400,
    "GET /events?start=%00": 400,
    "GET /events?start=0001-01-01T00:00:00%2B23:59": 400,
    "GET /events?start=9999-12-31T23:59:59-23:59": 400,
    "GET /events?start=2026-02-30T00:00:00Z": 400,
    "GET /events?start=2026-01-01T00:00:00." + "1" * 5_000 + "Z": 200,
    "GET /events?start=0001-01-01T00:00:00Z&end=9999-12-31T23:59:59Z": 200,
    "GET /meters?archived=%00": 400,
    "GET /local/stream?a=b": 400,
}


@pytest.mark.parametrize("line", PATHS, ids=[line[:60] for line in PATHS])
def test_a_path_or_query_that_is_odd_is_answered(target: Target, line: str) -> None:
    answer = target.answer(target.request(line))
    assert answer
    assert answer.status == PATHS[line], answer
    if answer.status >= 400:
        assert answer.error


@pytest.mark.parametrize(
    "query",
    [
        "timezone=",
        "timezone=%00",
        "timezone=..%2f..%2fetc%2fpasswd",
        "timezone=%2fetc%2fpasswd",
        "timezone=Europe",
        "timezone=" + "a" * 5_000,
        "timezone=%ff",
        "window=%00",
        "window=week",
        "per_customer=1",
        "start=yesterday",
        "customer_id=a&customer_id=a",
        "event_name=call",
    ],
    ids=lambda query: query[:40],
)
def test_a_question_to_a_meter_that_is_odd_is_refused(target: Target, query: str) -> None:
    with target.client() as client:
        meter_id = client.post("/meters", json=METER).json()["id"]
    answer = target.answer(target.request(f"GET /local/meters/{meter_id}/usage?{query}"))
    assert answer
    assert answer.status == 400
    assert answer.error["code"] == "INVALID_QUERY_PARAMS"


# Bodies


METER: dict[str, Any] = {
    "name": "Calls",
    "event_name": "call",
    "aggregation": {"type": "sum", "key": "tokens"},
    "measurement_unit": "call",
    "description": "for tests",
    "filter": {"conjunction": "and", "clauses": [{"key": "model", "operator": "equals", "value": "small"}]},
}
PRICE: dict[str, Any] = {"meter_id": "METER", "price_per_unit": "1.5", "free_threshold": 1, "currency": "USD"}
TIERS: dict[str, Any] = {
    "meter_id": "METER",
    "mode": "graduated",
    "quantity": "1",
    "tiers": [{"up_to": "10", "price_per_unit": "2", "flat_fee": "1"}, {"up_to": None, "price_per_unit": "1"}],
}
# A good body of every request that has one; METER stands for the id of a meter.
BODIES: dict[str, Any] = {
    "POST /events/ingest": {"events": [{**event("e", tokens=1), "timestamp": format_timestamp(utc_now())}]},
    "POST /meters": METER,
    "PATCH /meters/METER": {"name": "Calls", "measurement_unit": "call", "description": "for tests"},
    "POST /local/meters/preview": METER,
    "POST /local/invoice-preview": {
        "customer_id": "cus_ada",
        "start": "2026-01-01T00:00:00Z",
        "end": "2027-01-01T00:00:00Z",
        "prices": [PRICE, TIERS],
    },
    "PUT /local/subscriptions/sub_1": {
        "customer_id": "cus_ada",
        "start": "2026-01-01T00:00:00Z",
        "prices": [PRICE],
    },
    "POST /local/faults": {"kind": "500", "times": 0, "retry_after": 1, "seconds": 0.5},
    "POST /local/clock": {"now": format_timestamp(utc_now())},
    "POST /local/clock?": {"advance": 1},
}
HERE = "VALUE-OR-KEY"


def spoiled(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by a mark, and each of its keys."""
    yield HERE
    if isinstance(value, dict):
        for key, part in value.items():
            yield {HERE if other == key else other: rest for other, rest in value.items()}
            yield from ({**value, key: changed} for changed in spoiled(part))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in spoiled(part))


NEVER_GOOD = {
    "half of a surrogate pair": rb'"\ud800"',
    "the other half": rb'"x\udc00"',
    "the bytes of half a pair": b'"\xed\xa0\x80"',
    "latin-1": b'"\xe5"',
    "overlong UTF-8": b'"\xc0\x80"',
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "1e999": b"1e999",
    "-1e999": b"-1e999",
    "10,000 digits": b"1" * 10_000,
    "no end": b'"abc',
    "single quotes": b"'abc'",
    "leading zero": b"01",
    "a sign": b"+1",
    "hexadecimal": b"0x10",
    "a comment": b"/* */ 1",
    "no such escape": rb'"\x41"',
    "a control character": b'"\x01"',
    "undefined": b"undefined",
    "100,000 arrays": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
}
NEVER_WRONG_WITHIN = {
    "NUL": rb'"\u0000"',
    "400 digits": b"1" * 400,
    "-400 digits": b"-" + b"1" * 400,
    "4,300 digits": b"9" * 4_300,
    "1e308": b"1e308",
    "1e-400": b"1e-400",
    "true": b"true",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "nested": b"[" * 50 + b"]" * 50,
    "empty text": b'""',
    "spaces": b'"   "',
    "a long text": b'"' + b"x" * 50_000 + b'"',
    "direction marks": '"\u202e\u2066"'.encode(),
    "a pair": rb'"\ud83d\ude00"',
    "a JSON text of many digits": b'"' + b"1" * 5_000 + b'"',
    "a large exponent": b'"1e999999999"',
}


def replies(target: Target, line: str, values: dict[str, bytes]) -> Iterator[tuple[str, httpx.Response]]:
    method, _, path = line.partition(" ")
    with target.client() as client:
        meter_id = client.post("/meters", json=METER).json()["id"]
        for shape in spoiled(BODIES[line]):
            text = json.dumps(shape).replace("METER", meter_id).encode()
            for name, value in values.items():
                body = text.replace(f'"{HERE}"'.encode(), value)
                answer = client.request(method, path.replace("METER", meter_id), content=body)
                yield f"{name} in {text[:300]!r}", answer


@pytest.mark.parametrize("line", BODIES)
def test_what_is_no_json_of_utf_8_is_refused_wherever_it_stands(target: Target, line: str) -> None:
    wrong = [
        f"{where}: {answer.status_code} {answer.text[:200]}"
        for where, answer in replies(target, line, NEVER_GOOD)
        if answer.status_code not in (400, 422) or not answer.json()["message"]
    ]
    assert wrong == []
    assert target.stored() == []


@pytest.mark.parametrize("line", BODIES)
def test_a_value_that_is_odd_never_makes_it_fail(target: Target, line: str) -> None:
    wrong = [
        f"{where}: {answer.status_code} {answer.text[:200]}"
        for where, answer in replies(target, line, NEVER_WRONG_WITHIN)
        if answer.status_code not in (200, 201, 400, 404, 422)
    ]
    assert wrong == []


def twice(text: str) -> Iterator[str]:
    """The JSON text with each of its keys standing twice."""
    for found in re.finditer(r'"\w+": ', text):
        yield f"{text[: found.start()]}{found[0]}null, {text[found.start() :]}"


@pytest.mark.parametrize("line", BODIES)
def test_a_key_that_stands_twice_is_refused_at_every_level(target: Target, line: str) -> None:
    method, _, path = line.partition(" ")
    with target.client() as client:
        meter_id = client.post("/meters", json=METER).json()["id"]
        for text in twice(json.dumps(BODIES[line])):
            answer = client.request(method, path.replace("METER", meter_id), content=text.replace("METER", meter_id))
            assert answer.status_code == 422, text
            assert "stands twice in one object" in answer.json()["message"]
    assert target.stored() == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037"])
def test_another_encoding_than_utf_8_is_refused(target: Target, encoding: str) -> None:
    body = json.dumps({"events": [event("e1", text="\u00e5")]}, ensure_ascii=False).encode(encoding)
    answer = target.answer(target.request("POST /events/ingest", body))
    assert answer
    assert answer.status == 422
    assert "the body is not JSON" in answer.error["message"]


def test_a_byte_order_mark_is_passed_over(target: Target) -> None:
    """RFC 8259 lets a reader do so; some clients on Windows send it."""
    body = json.dumps({"events": [event("e1", text="\u00e5")]}, ensure_ascii=False).encode("utf-8-sig")
    answer = target.answer(target.request("POST /events/ingest", body))
    assert answer
    assert answer.status == 200


@pytest.mark.parametrize("size", [0, 1, 10, 50, -1])
def test_a_body_that_is_cut_short_is_refused(target: Target, size: int) -> None:
    body = json.dumps({"events": [event("e1")]}).encode()[:size]
    answer = target.answer(target.request("POST /events/ingest", body))
    assert answer
    assert answer.status == 422
    assert "the body is not JSON" in answer.error["message"]


@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "\n", "../../etc/passwd", "a/b?c#d%2f", "'; DROP TABLE events; --", "\u202e"]
)
def test_an_id_of_odd_characters_is_stored_and_read_as_it_is(target: Target, text: str) -> None:
    with target.client() as client:
        made = {"event_id": f"{text}.", "customer_id": f"{text}.", "event_name": f"{text}.", "metadata": {text: text}}
        assert client.post("/events/ingest", json={"events": [made]}).json()["ingested_count"] == 1
        assert client.post("/events/ingest", json={"events": [made]}).json()["duplicate_count"] == 1
        (found,) = client.get("/events", params={"customer_id": f"{text}."}).json()["items"]
        assert {key: found[key] for key in made} == made


# Bodies that ask for much work


def test_an_object_with_many_keys_of_which_one_stands_twice_is_refused_at_once(target: Target) -> None:
    keys = ",".join(f'"k{n}":1' for n in range(60_000))
    answer = target.answer(target.request("POST /events/ingest", f'{{{keys},"k59999":1}}'.encode()))
    assert answer
    assert answer.status == 422
    assert '"k59999" stands twice' in json.loads(answer.body)["message"]


MUCH_WRONG = {
    "fields of the body": '{{"events":[],{}}}',
    "fields of an event": '{{"events":[{{{}}}]}}',
    "metadata": '{{"events":[{{"event_id":"e","customer_id":"c","event_name":"n","metadata":{{{}}}}}]}}',
}


@pytest.mark.parametrize("place", MUCH_WRONG)
def test_a_refusal_is_no_larger_than_what_may_be_sent(target: Target, place: str) -> None:
    pairs = ",".join(f'"key{n}":null' for n in range(150_000))
    answer = target.answer(target.request("POST /events/ingest", MUCH_WRONG[place].format(pairs).encode()))
    assert answer
    assert answer.status in (400, 422)
    assert answer.error["details"]
    assert len(answer.body) < MAX_BODY_BYTES
    with target.client() as client:
        assert len(client.get("/local/rejections").content) < MEBIBYTE  # it keeps a hundred of them


# More than may be sent


def flood(target: Target, start: bytes, piece: bytes, most: int) -> tuple[int, Answer | None]:
    """Send without end, as it were: how much the server let in before it cut the connection, and its answer."""
    sent = 0
    answer = None
    with target.connect(seconds=HEADERS_TIMEOUT + BODY_TIMEOUT + 10) as connection:
        connection.sendall(start)
        with suppress(ConnectionError):
            while sent < most:
                sent += connection.send(piece)
                if answer is None and select.select([connection], [], [], 0)[0]:
                    answer = read(connection)
                    if answer is None:
                        break
        answer = answer or read(connection)
    return sent, answer


FRAMES = {
    "by its length": (b"Content-Length: %d\r\n" % (100 * MEBIBYTE), b"x" * 65_536),
    "in chunks": (b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("key", ["with a key", "without one"])
def test_a_body_of_100_mb_is_refused_and_cut_before_it_is_read_whole(
    target: Target, name: str, key: str, record_testsuite_property: Callable[[str, object], None]
) -> None:
    header, piece = FRAMES[name]
    headers = target.headers if key == "with a key" else target.headers.replace(b"Authorization", b"X-Other")
    start = b"POST /events/ingest HTTP/1.1\r\n" + headers + header + b"\r\n"
    sent, answer = flood(target, start, piece, 100 * MEBIBYTE)
    record_testsuite_property(f"bytes let in, {name}, {key}", sent)
    assert sent < MAX_BODY_BYTES + BUFFERS + 16 * MEBIBYTE
    assert answer
    assert answer.error["code"] == ("PAYLOAD_TOO_LARGE" if key == "with a key" else "UNAUTHORIZED")


def test_a_body_of_100_mb_is_refused_before_any_of_it_is_sent(target: Target) -> None:
    headers = FRAMES["by its length"][0] + b"Expect: 100-continue\r\n"
    with target.connect() as connection:
        connection.sendall(b"POST /events/ingest HTTP/1.1\r\n" + target.headers + headers + b"\r\n")
        answer = read(connection)
    assert answer
    assert answer.status == 413
    assert answer.error["code"] == "PAYLOAD_TOO_LARGE"


def test_a_client_that_sends_all_of_a_large_body_first_can_read_why_it_was_refused(target: Target) -> None:
    with target.client() as client:
        answer = client.post("/events/ingest", content=b"x" * (MAX_BODY_BYTES + MEBIBYTE))
        assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert client.post("/events/ingest", json={"events": [event("e1")]}).status_code == 200


ENDLESS = {
    "a header": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 65_536),
    "headers": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n" * 10_000),
    "a header's name": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\n", b"x" * 65_536),
    "a path": (b"GET /", b"x" * 65_536),
    "a query": (b"GET /events?", b"x=y&" * 16_384),
    "a method": (b"", b"G" * 65_536),
    "empty lines": (b"", b"\r\n" * 32_768),
    "trailers": (b"POST /events/ingest HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000),
    "a trailer": (b"POST /events/ingest HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * 65_536),
    "a chunk's extension": (
        b"POST /events/ingest HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n1;a=",
        b"x" * 65_536,
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_cut(target: Target, name: str) -> None:
    start, piece = ENDLESS[name]
    sent, answer = flood(target, start.replace(b"%s", target.headers), piece, 64 * MEBIBYTE)
    assert sent < BUFFERS
    assert answer is None or 400 <= answer.status < 500


# Slow clients, gone clients, many clients


SLOW = {
    "a request line": (b"", b"GET /local/health"),
    "headers": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 100),
    "a body": (b"POST /events/ingest HTTP/1.1\r\n%sContent-Length: 1000\r\n\r\n", b"{" * 100),
    "chunks": (b"POST /events/ingest HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 100),
    "a body that was answered": (
        b"POST /events/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        b"{" * 100,
    ),
    "the next request": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /local/health"),
    "empty lines": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n" * 100),
    "one empty line": (b"GET /local/health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
def test_who_sends_a_byte_now_and_then_is_cut_off(name: str) -> None:
    start, rest = SLOW[name]
    with (
        Server(create_app(MemoryStore(), body_timeout=0.5), headers_timeout=0.5) as server,
        another_client(server.port),
        (target := Target(server.port)).connect(seconds=8) as connection,
    ):
        connection.sendall(start.replace(b"%s", target.headers))
        with suppress(ConnectionError):
            for number in range(80):  # 8 s, a byte each 0.1 s, while there are any
                connection.sendall(rest[number : number + 1])
                time.sleep(0.1)
                if select.select([connection], [], [], 0)[0] and not connection.recv(65_536):
                    break
            else:
                pytest.fail("it was not cut off")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_away_anywhere_in_its_request_leaves_nothing_behind(target: Target, *, reset: bool) -> None:
    body = json.dumps({"events": [event(f"e{n}", text="x" * 100) for n in range(20)]}).encode()
    request = target.request("POST /events/ingest", body)
    for size in (*range(1, len(request), 97), len(request) - 1):
        connection = target.connect()
        connection.sendall(request[:size])
        hang_up(connection, reset=reset)
    assert target.stored() == []


def hang_up(connection: socket.socket, *, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_may_go_away_in_the_middle_of_an_answer(target: Target, *, reset: bool) -> None:
    pairs = {f"key_{n}": "x" * 500 for n in range(50)}
    with target.client() as client:
        assert client.post("/events/ingest", json={"events": [event(f"e{n}", **pairs) for n in range(100)]})
    for line in ("GET /events?page_size=100", "GET /local/stream", "GET /dashboard"):
        for size in (0, 1, 1_000):
            connection = target.connect()
            connection.sendall(target.request(line) * 3)
            if size:
                connection.recv(size)
            hang_up(connection, reset=reset)
    assert len(target.stored()) == 100


def test_a_client_that_does_not_read_its_answers_keeps_nobody_waiting(target: Target) -> None:
    pairs = {f"key_{n}": "x" * 500 for n in range(50)}
    with target.client() as client:
        client.post("/events/ingest", json={"events": [event(f"e{n}", **pairs) for n in range(100)]})
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(target.connect())
            connection.sendall(target.request("GET /events?page_size=100") * 20)
        assert len(target.stored()) == 100


def test_requests_that_are_sent_all_at_once_are_answered_in_their_order(target: Target) -> None:
    good = [json.dumps({"events": [event(f"e{n}")]}).encode() for n in range(100)]
    bad = [b"[", b"{}", b'{"events":[]}']
    bodies = [*good[:50], *bad, *good[50:], *good]
    with target.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(target.request("POST /events/ingest", body) for body in bodies))
        answers = [next_answer(stream) for _ in bodies]
    found = [(answer.status, json.loads(answer.body).get("ingested_count")) for answer in answers if answer]
    assert found == [*[(200, 1)] * 50, *[(422, None)] * 3, *[(200, 1)] * 50, *[(200, 0)] * 100]
    assert len(target.stored()) == 100


def test_a_connection_serves_a_thousand_requests_good_and_bad(target: Target) -> None:
    with target.connect() as connection:
        for number in range(1_000):
            body = json.dumps({"events": [event(f"e{number}")]}).encode() if number % 2 else b"{"
            connection.sendall(target.request("POST /events/ingest", body))
            answer = read(connection)
            assert answer
            assert answer.status == (200 if number % 2 else 422)
    with target.client() as client:
        assert len(client.get("/events?page_size=100&page_number=4").json()["items"]) == 100


@pytest.fixture
def file_limits() -> Iterator[int]:
    """How many files this process may open at most; what it may open now is put back at the end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_thousand_idle_connections_do_not_keep_others_out(file_limits: int, tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, file_limits))
    with running("serve", "--port", "0", "--memory", cwd=tmp_path) as (process, url), ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (file_limits, file_limits))
        target = Target(urlsplit(url).port or 0)
        with another_client(target.port):
            for number in range(1_000):
                connection = stack.enter_context(target.connect())
                connection.sendall(b"GET /local/health HTTP/1.1\r\nHost: loc" if number % 2 else b"")
            answer = target.answer(target.request("GET /local/health"))
            assert answer
            assert answer.status == 200
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


# What the user of a terminal sees


def test_nothing_of_it_makes_the_server_print_more_than_a_line(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--memory", cwd=tmp_path) as (process, url):
        target = Target(urlsplit(url).port or 0)
        requests = [
            *MALFORMED.values(),
            *(target.request(line) for line in PATHS),
            *(target.request("POST /events/ingest", body) for body in NEVER_GOOD.values()),
            target.request("GET /local/health", headers=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ]
        with another_client(target.port):
            for request in requests:
                target.answer(request)
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert set(errors.splitlines()) == {"Invalid HTTP request received."}
    assert process.returncode == 0
