"""The fixture `metering_api`, as a user's tests use it."""

import asyncio
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from meterprint import Aggregation, AsyncMeteringClient, Condition, Event, Filter, Meter, MeteringClient
from meterprint.local.server import Server
from meterprint.testing import InProcess, MeteringAPI


def event(event_id: str, **metadata: float) -> Event:
    return Event(event_id, "cus_ada", "api.request", metadata=metadata)


def test_synchronous_and_asynchronous_clients_reach_the_same_api(metering_api: MeteringAPI) -> None:
    async def main() -> None:
        async with AsyncMeteringClient.from_env() as client:
            await client.ingest([event("e2")])

    with MeteringClient.from_env() as client:
        client.ingest([event("e1")])
    asyncio.run(main())
    assert [found.event_id for found in metering_api.events] == ["e1", "e2"]


def test_a_plain_httpx_call_reaches_it_too(metering_api: MeteringAPI) -> None:
    headers = {"Authorization": f"Bearer {metering_api.key}"}
    answer = httpx.post(f"{metering_api.url}/events/ingest", json={"events": [event("e").to_wire()]}, headers=headers)
    assert answer.json() == {"ingested_count": 1, "duplicate_count": 0}


def test_each_test_starts_with_nothing(metering_api: MeteringAPI) -> None:
    assert metering_api.events == []
    assert metering_api.meters == []


def test_usage_reads_a_meter_by_its_definition(metering_api: MeteringAPI) -> None:
    large = Filter("and", (Condition("bytes", "greater_than", 10),))
    meter = Meter("Bytes", "api.request", Aggregation("sum", "bytes"), "byte", filter=large)
    with MeteringClient.from_env() as client:
        client.ingest([event("e1", bytes=5), event("e2", bytes=50), event("e3", bytes=0.5), event("e4", bytes=11)])
    assert metering_api.usage(meter) == 61
    assert metering_api.usage(meter, customer_id="cus_bo") == 0
    assert [found.name for found in metering_api.meters] == ["Bytes"]


def test_other_hosts_are_reached_as_without_it(metering_api: MeteringAPI) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    with Server(app) as server:
        assert httpx.get(server.url).status_code == 204


class Something:
    """Waits for whoever drives the application."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def test_an_application_that_waits_gives_no_answer() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await Something()

    with httpx.Client(transport=InProcess(app)) as client, pytest.raises(httpx.ReadTimeout, match="waits"):
        client.get("http://api.test")


def test_without_the_extra_the_fixture_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("raise ImportError('No module named starlette')\n")
    (tmp_path / "test_it.py").write_text("def test_it(metering_api): pass\n")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(words, check=False, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": "."})
    assert done.returncode == 1
    assert "pip install '.[local]'" in done.stdout
