"""The spool: on disk before `record` returns, and there after a death."""

import errno
import json
import os
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import die
from meterprint import (
    AsyncMeteringClient,
    AsyncRecorder,
    ConfigurationError,
    DeadLetter,
    Event,
    MeteringClient,
    Recorder,
)
from meterprint.spool import Segment, Spool, dead_letter_files, read_lines
from meterprint.testing import MeteringAPI


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def event(number: int) -> Event:
    return Event(f"e{number}", "cus_ada", "api.request", metadata={"n": number})


def away(**options: Any) -> Recorder:
    """A recorder whose metering API does not answer."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = MeteringClient("http://api.test", "k", transport=httpx.MockTransport(refuse))
    return Recorder(client, **{"shutdown_timeout": 0.2, "backoff": lambda attempt: 0.01, **options})


def spooled(folder: Path) -> list[str]:
    return [json.loads(line)["event_id"] for path in sorted(folder.glob("*.jsonl")) for line in read_lines(path)]


def test_an_event_is_in_the_file_when_record_returns(folder: Path) -> None:
    with away(spool=folder) as recorder:
        for number in range(3):
            recorder.record(event(number))
            assert spooled(folder) == [f"e{n}" for n in range(number + 1)]
    assert spooled(folder) == ["e0", "e1", "e2"]


def test_the_next_start_sends_what_is_left_and_leaves_nothing(
    folder: Path, metering_api: MeteringAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with away(spool=folder) as recorder:
        for number in range(1500):
            recorder.record(event(number))
    assert "1500 events stay in the spool" in caplog.text
    with Recorder.from_env(spool=folder) as recorder:
        recorder.record(event(1500))
        assert recorder.stats.recorded == 1501
    assert len(metering_api.events) == 1501
    assert [path.name for path in folder.iterdir()] == ["FORMAT"]


def test_what_a_killed_process_left_is_sent_and_a_torn_last_line_is_not(
    folder: Path, metering_api: MeteringAPI
) -> None:
    dying = away(spool=folder)
    for number in range(3):
        dying.record(event(number))
    die(dying)
    (segment,) = folder.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"event_id":"torn","customer_id":"c')
    with Recorder.from_env(spool=folder):
        pass
    assert {stored.event_id for stored in metering_api.events} == {"e0", "e1", "e2"}


def test_the_files_of_a_living_process_are_left_alone(folder: Path, metering_api: MeteringAPI) -> None:
    with away(spool=folder) as living:
        living.record(event(1))
        with Recorder.from_env(spool=folder) as other:
            other.record(event(2))
        assert [stored.event_id for stored in metering_api.events] == ["e2"]
        assert spooled(folder) == ["e1"]
    with Recorder.from_env(spool=folder):
        pass
    assert {stored.event_id for stored in metering_api.events} == {"e1", "e2"}


def test_of_several_that_start_at_once_one_adopts(folder: Path, metering_api: MeteringAPI) -> None:
    dying = away(spool=folder)
    dying.record(event(1))
    die(dying)
    spools = [Spool(folder) for _ in range(4)]
    adopted = [path for spool in spools for path in spool.adopt()]
    assert len(adopted) == 1
    for spool in spools:
        spool.close()


def test_beyond_the_limit_of_memory_events_are_on_disk_alone(folder: Path) -> None:
    back = threading.Event()
    stored: set[str] = set()

    def answer(request: httpx.Request) -> httpx.Response:
        if not back.is_set():
            return httpx.Response(503, json={"code": "C", "message": "m"})
        stored.update(item["event_id"] for item in json.loads(request.content)["events"])
        return httpx.Response(200, json={"ingested_count": 1000})

    client = MeteringClient("http://api.test", "k", transport=httpx.MockTransport(answer))
    with Recorder(client, spool=folder, max_buffered=2000, backoff=lambda attempt: 0.02) as recorder:
        for number in range(10_000):
            recorder.record(event(number))
        assert recorder._held <= 3000
        assert recorder.stats.buffered == 10_000
        back.set()
    assert len(stored) == 10_000
    assert recorder.stats.dropped == 0


def test_a_disk_that_fails_keeps_events_in_memory(
    folder: Path, metering_api: MeteringAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = os.write
    room = 1000

    def full(file: int, data: bytes) -> int:
        nonlocal room
        if not data.startswith(b'{"event_id"'):
            return write(file, data)
        part = data[:room]
        room -= len(part)
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, part)

    monkeypatch.setattr(os, "write", full)
    with Recorder.from_env(spool=folder) as recorder:
        for number in range(100):
            recorder.record(event(number))
        assert all(line.endswith(b"}") for path in folder.glob("*.jsonl") for line in read_lines(path))
    assert len(metering_api.events) == 100
    assert "cannot be written, events are kept in memory" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["FORMAT"]


def test_a_disk_that_takes_nothing_at_all_leaves_no_file(
    folder: Path, metering_api: MeteringAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Segment, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Segment, "append", fail)
    with Recorder.from_env(spool=folder) as recorder:
        recorder.record(event(1))
        assert not list(folder.glob("*.jsonl"))
    assert [stored.event_id for stored in metering_api.events] == ["e1"]
    assert [path.name for path in folder.iterdir()] == ["FORMAT"]


def test_dead_letters_are_in_the_spool_with_their_reasons(folder: Path, metering_api: MeteringAPI) -> None:
    with Recorder.from_env(spool=folder, strict=False) as recorder:
        recorder.record("api.request", customer_id="cus_ada", metadata={"size": object()})  # type: ignore[dict-item]
    ((_, (letter,)),) = dead_letter_files(folder)
    assert letter.code == "INVALID_METADATA"
    assert "/metadata/size" in letter.reason
    assert letter.event["customer_id"] == "cus_ada"
    assert len(letter.event_id) == 36
    assert letter.at <= datetime.now(UTC)


def test_a_dead_letter_is_the_same_after_it_was_written() -> None:
    letter = DeadLetter({"event_id": "e1", "metadata": {"a": "\u2028"}}, "CODE", "a\nreason")
    assert DeadLetter.from_json(letter.to_json()) == letter


def test_dead_letters_that_cannot_be_written_are_not_dead(
    folder: Path, metering_api: MeteringAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Path, *args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    late = Event("late", "cus_ada", "api.request", datetime(2020, 1, 1, tzinfo=UTC))
    recorder = Recorder.from_env(spool=folder, shutdown_timeout=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        recorder.record(late)
        assert not recorder.flush(0.2)
        recorder.close()
        for worker in recorder._workers:  # none may still be trying when the disk has room again
            worker.join(10)
    assert recorder.stats.dead == 0
    assert spooled(folder) == ["late"]
    with Recorder.from_env(spool=folder):
        pass
    assert [letter.event_id for _, letters in dead_letter_files(folder) for letter in letters] == ["late"]


def test_an_asyncio_recorder_leaves_its_rest_in_the_spool(folder: Path, metering_api: MeteringAPI) -> None:
    import asyncio

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def main() -> None:
        client = AsyncMeteringClient("http://api.test", "k", transport=httpx.MockTransport(refuse))
        async with AsyncRecorder(client, spool=folder, shutdown_timeout=0.2) as recorder:
            recorder.record(event(1))

    asyncio.run(main())
    with Recorder.from_env(spool=folder):
        pass
    assert [stored.event_id for stored in metering_api.events] == ["e1"]


# Bad paths.


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    return path


def test_the_file_of_another_program_is_refused(database: Path) -> None:
    before = database.read_bytes()
    with pytest.raises(ConfigurationError, match="is a file of another program: a spool is a folder"):
        away(spool=database)
    assert database.read_bytes() == before


@pytest.mark.parametrize("marker", [None, "Not ours\n"])
def test_the_folder_of_another_program_is_refused(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    if marker:
        (tmp_path / "FORMAT").write_text(marker)
    with pytest.raises(ConfigurationError, match="another program: name one of its own"):
        away(spool=tmp_path)
    assert not list(tmp_path.glob("*.lock"))


def test_the_spool_of_a_newer_version_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "FORMAT").write_text("2\n")
    with pytest.raises(ConfigurationError, match="made by a newer version: update meterprint"):
        away(spool=folder)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be written \(Not a directory\): name a folder that can"):
        away(spool=tmp_path / "file" / "spool")


def test_only_a_spool_has_dead_letters_to_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no spool"):
        dead_letter_files(tmp_path)
