"""What the tests share: clocks, stores, a served metering API; and the rule that CI skips nothing."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from hypothesis import settings

import llm_calls
from meterprint import Recorder
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import MemoryStore, Store
from meterprint.testing import InProcess

settings.register_profile("meterprint", deadline=None, max_examples=100)
settings.load_profile("meterprint")

HOW_TO_GET = {
    "chromium": "a browser is missing: apt install chromium, or any Chrome on the PATH",
    "go": "Go is missing: make setup",
    "node": "Node.js is missing: make setup",
    "packages": "the npm packages of the snippets are missing: make setup",
}
_skipped: list[str] = []
_calls: dict[tuple[str, str, str], llm_calls.Call] = {}


def require_tool(name: str) -> NoReturn:
    """Skip the test for want of a tool. In CI that fails the run."""
    pytest.skip(HOW_TO_GET.get(name, f"{name} is missing: get it from your system's packages"))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def die(recorder: Recorder) -> None:
    """Do to a recorder what `kill -9` does: its threads stop, its locks are free, its files stay."""
    with recorder._changed:
        recorder._deadline = 0.0
        recorder._closed = recorder._retired = True
        recorder._hurry += 1
        recorder._changed.notify_all()
    for worker in recorder._workers:
        worker.join(10)
    if recorder._spool:
        recorder._spool.abandon()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "ledger.db")
    yield store
    store.close()


@pytest.fixture
def api(store: Store, clock: Clock) -> Iterator[httpx.Client]:
    transport = InProcess(create_app(store, clock=clock))
    headers = {"Authorization": "Bearer test-key"}
    with httpx.Client(transport=transport, base_url="http://api.test", headers=headers) as client:
        yield client


@pytest.fixture(scope="session")
def served() -> Iterator[Server]:
    with Server(create_app(MemoryStore())) as server:
        yield server


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    properties: dict[str, Any] = dict(report.user_properties)
    if report.when == "call" and "llm_call" in properties:
        client, name, side, buckets = properties["llm_call"]
        _calls[client, name, side] = llm_calls.Call(report.outcome, buckets)
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped.append(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get("CI"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if llm_calls.is_stale(_calls):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if llm_calls.is_stale(_calls):
        terminalreporter.section("The table of calls on the LLM page is not of this run", red=True)
        terminalreporter.line("UPDATE_RESULTS=1 make test ARGS=tests/test_llm_wrap.py")
    if _skipped and os.environ.get("CI"):
        terminalreporter.section("In CI nothing may be skipped", red=True)
        for line in _skipped:
            terminalreporter.line(line)
