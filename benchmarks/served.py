"""What the benchmarks of `meterprint serve` share: the server in a process of its own, requests to it, events."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

from meterprint.blueprints.api_gateway import BLUEPRINT, REQUEST
from meterprint.event import MetadataValue
from meterprint.meter import Meter

KEY = "bench"
LEDGER = hashlib.sha256(KEY.encode()).hexdigest()[:16]  # of that key, as the server has it
CUSTOMERS = 1_000
BATCH = 1_000
_ENDPOINTS = {
    "/v1/orders/{order_id}": 60,
    "/v1/orders": 20,
    "/v1/search": 10,
    "/v1/reports/{report_id}": 6,
    "/health": 4,
}
_STATUSES = {200: 90, 201: 5, 404: 3, 429: 1, 503: 1}


def meters(*names: str) -> list[Meter]:
    """Meters of the API gateway blueprint: those named, or all four."""
    return [meter for meter in BLUEPRINT.meters if not names or meter.name in names]


def metadata(random: Random, count: int) -> Iterator[dict[str, MetadataValue]]:
    """Metadata of requests, each its own."""
    endpoints = random.choices(list(_ENDPOINTS), list(_ENDPOINTS.values()), k=count)
    statuses = random.choices(list(_STATUSES), list(_STATUSES.values()), k=count)
    for endpoint, status in zip(endpoints, statuses, strict=True):
        yield REQUEST.sample(
            endpoint=endpoint,
            method="POST" if status == 201 else "GET",
            status_code=status,
            duration_ms=round(random.expovariate(0.02), 3),
            request_bytes=random.randrange(2_000),
            response_bytes=random.randrange(100_000),
        )


@dataclass(frozen=True)
class Memory:
    """Bytes that a process holds, and the most that it held; 0 where the system does not say."""

    now: int
    most: int


class Served:
    """`meterprint serve` over a file, from `with` on until its end.

    Attributes:
        start_ms: From the start of the process to the first answer.
    """

    def __init__(self, db: Path) -> None:
        self._words = [sys.executable, "-m", "meterprint.cli", "serve", "--port", "0", "--db", str(db)]

    def __enter__(self) -> Self:
        start = time.perf_counter()
        self._process = subprocess.Popen(self._words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = next(line.partition("=")[2].strip() for line in self._process.stdout if "METERING_API_URL=" in line)
        with self.connection() as connection:
            connection.ask("GET", "/local/health")
        self.start_ms = (time.perf_counter() - start) * 1000
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def connection(self) -> Connection:
        """A connection of its own."""
        return Connection(urlsplit(self.url).netloc)

    def memory(self) -> Memory:
        """What the server holds."""
        status = Path(f"/proc/{self._process.pid}/status")
        if not status.exists():
            return Memory(0, 0)
        values = dict(line.split(":", 1) for line in status.read_text().splitlines())
        now, most = (int(values[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return Memory(now, most)


class Connection(HTTPConnection):
    """A connection that is kept, for requests with the key."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON value of an answer.

        Raises:
            SystemExit: It is an error.
        """
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self.request(method, path, body, headers)
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def create(self, meter: Meter) -> str:
        """The id of a new meter."""
        meter_id: str = self.ask("POST", "/meters", json.dumps(meter.to_wire()).encode())["id"]
        return meter_id


def load() -> float:
    """How many processes wanted a processor in the last minute: a figure beside which others ran is too low."""
    return round(os.getloadavg()[0], 2)
