"""Our client in the scenarios of benchmarks/reliability.py: real processes, a real server, and something goes wrong.

They are the same that the other clients are compared in, only shorter.
"""

import re
import signal
import sys
from fcntl import flock
from itertools import pairwise
from pathlib import Path

import pytest
import reliability
from reliability import BRIEF, EVENTS, MEMORY, OURS, SCENARIOS, SPOOL, Outcome

from meterprint.spool import Spool

WITH_AND_WITHOUT_SPOOL = pytest.mark.parametrize("client", OURS)


def play(name: str, client: str) -> Outcome:
    outcome = reliability.run(name, client, BRIEF)
    sys.stderr.write(outcome.log)
    return outcome


def assert_all_delivered(outcome: Outcome, *, once: bool = True) -> None:
    assert (outcome.delivered, outcome.kept) == (outcome.recorded, 0)
    assert outcome.recorded > 0
    if once:
        assert outcome.repeated == 0


# The ends of a process.


@WITH_AND_WITHOUT_SPOOL
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("script_ends", 0),
        ("sys_exit", 3),
        ("exception", 1),
        ("sigterm", -signal.SIGTERM),
        ("sigterm_handled_before", 0),
        ("sigterm_handled_after", 0),
        ("loop_ends", 0),
        ("loop_ends_unused", 0),
        ("loop_sigterm", -signal.SIGTERM),
        ("loop_cancelled", 1),
    ],
)
def test_an_end_loses_nothing_and_keeps_its_status(name: str, status: int, client: str) -> None:
    outcome = play(name, client)
    assert_all_delivered(outcome, once=not name.startswith("loop_"))  # a loop's end cuts what is under way
    assert outcome.recorded == EVENTS
    assert outcome.statuses == [status]


@WITH_AND_WITHOUT_SPOOL
def test_sigterm_while_events_come_loses_none_whose_record_returned(client: str) -> None:
    outcome = play("sigterm_under_load", client)
    assert_all_delivered(outcome)
    assert outcome.recorded > 500 * BRIEF.rounds
    assert set(outcome.statuses) == {-signal.SIGTERM}


def test_an_end_without_a_metering_api_is_bounded_and_says_what_is_lost() -> None:
    outcome = play("no_api_at_the_end", MEMORY)
    assert outcome.notes["end"] < 2 + 5
    assert "1000 events are lost" in outcome.log
    assert outcome.statuses == [0]


def test_an_end_without_a_metering_api_leaves_all_to_the_next_process_by_the_spool() -> None:
    outcome = play("no_api_at_the_end", SPOOL)
    assert outcome.notes["end"] < 2 + 5
    assert outcome.notes["kept"] == EVENTS
    assert "1000 events stay in the spool" in outcome.log
    assert_all_delivered(outcome)


# Several processes.


@WITH_AND_WITHOUT_SPOOL
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("forked", EVENTS),
        ("forked_both", 2 * EVENTS),
        ("multiprocessed", EVENTS),
        ("multiprocessed_both", 2 * EVENTS),
    ],
)
def test_a_forked_child_delivers_its_own_and_no_other(name: str, count: int, client: str) -> None:
    outcome = play(name, client)
    assert_all_delivered(outcome)
    assert outcome.recorded == count
    assert outcome.statuses == [0]


def test_workers_lose_nothing_when_one_is_killed_and_replaced() -> None:
    outcome = play("workers", SPOOL)
    assert_all_delivered(outcome, once=False)
    assert outcome.recorded >= EVENTS + 50
    assert outcome.statuses == [0]


@pytest.mark.parametrize("name", ["killed", "killed_together"])
def test_a_killed_process_loses_nothing_of_its_spool(name: str) -> None:
    outcome = play(name, SPOOL)
    assert_all_delivered(outcome, once=False)
    assert outcome.recorded > 200
    assert outcome.dead == 0


def test_a_process_that_adopts_leaves_one_alone_that_just_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"

    def lock_late(file: int, operation: int) -> None:
        monkeypatch.undo()
        Spool(folder).adopt()  # by another process, just before this one has its lock
        flock(file, operation)

    monkeypatch.setattr("meterprint.spool.flock", lock_late)
    living = Spool(folder)
    living.segment().append(b"{}")
    assert Spool(folder).adopt() == []


# The metering API.


@WITH_AND_WITHOUT_SPOOL
def test_an_outage_loses_nothing(client: str) -> None:
    outcome = play("outage", client)
    assert_all_delivered(outcome)
    assert outcome.seconds > BRIEF.outage
    assert outcome.requests > 1


def test_a_retry_after_is_obeyed() -> None:
    outcome = play("retry_after", MEMORY)
    assert_all_delivered(outcome)
    assert outcome.requests == 4
    assert min(later - earlier for earlier, later in pairwise(outcome.moments)) >= 2


@WITH_AND_WITHOUT_SPOOL
def test_a_lost_answer_loses_nothing(client: str) -> None:
    outcome = play("cut", client)
    assert_all_delivered(outcome, once=False)
    assert outcome.repeated == 2 * EVENTS


def test_a_server_that_hangs_is_not_waited_for() -> None:
    outcome = play("hang", MEMORY)
    assert_all_delivered(outcome)
    assert outcome.seconds < 30


@pytest.mark.parametrize(
    ("name", "count"), [("rate_limit_steady", 10 * BRIEF.steady), ("rate_limit_burst", 1000 * BRIEF.burst)]
)
def test_the_rate_limit_is_never_reached(name: str, count: int) -> None:
    outcome = play(name, MEMORY)
    assert_all_delivered(outcome)
    assert outcome.recorded == count
    assert outcome.requests < 40
    assert "not delivered at try" not in outcome.log


@WITH_AND_WITHOUT_SPOOL
@pytest.mark.parametrize(
    ("name", "most", "reason"),
    [("poison", 25, "400 INVALID_METADATA: poison"), ("poison_pointed_to", 3, "/metadata/poison: poison")],
)
def test_one_bad_event_takes_no_other_with_it(name: str, most: int, reason: str, client: str) -> None:
    outcome = play(name, client)
    assert_all_delivered(outcome)
    assert (outcome.recorded, outcome.dead) == (EVENTS - 1, 1)
    assert outcome.requests <= most
    assert f"event e500 is a dead letter: INVALID_METADATA {reason}" in outcome.log


# The machine.


@WITH_AND_WITHOUT_SPOOL
@pytest.mark.parametrize("name", ["clock_fast", "clock_slow"])
def test_a_wrong_clock_loses_nothing_and_is_named(name: str, client: str) -> None:
    outcome = play(name, client)
    assert_all_delivered(outcome)
    assert outcome.dead == 0
    match = re.search(rf"the clock of this machine is (\d+) s {name.removeprefix('clock_')}", outcome.log)
    assert match
    assert abs(int(match[1]) - 600) <= 5


def test_a_full_disk_loses_nothing_and_is_named() -> None:
    outcome = play("disk_full", SPOOL)
    assert_all_delivered(outcome)
    assert "cannot be written, events are kept in memory" in outcome.log
    assert re.search("No space left on device|the disk is full|File too large", outcome.log)


def test_a_full_buffer_drops_without_a_spool_and_says_how_many() -> None:
    outcome = play("buffer_full", MEMORY)
    assert_all_delivered(outcome)
    assert outcome.asked == 2 * EVENTS
    assert 500 <= outcome.delivered < 2 * EVENTS
    assert outcome.notes["slowest"] < 3
    assert "the buffer is full" in outcome.log


def test_a_full_buffer_drops_nothing_with_a_spool() -> None:
    outcome = play("buffer_full", SPOOL)
    assert_all_delivered(outcome)
    assert (outcome.recorded, outcome.notes["dropped"]) == (2 * EVENTS, 0)


def test_a_spool_of_format_1_is_delivered() -> None:
    """Later versions must keep passing this.

    tests/data/spool-format-1 is what two killed processes of version 0.1.0 left: two segments, the second with a last
    line that its process did not finish; a journal of a rollup; a dead letter. A copy is played with: it never changes.
    """
    outcome = play("older_spool", SPOOL)
    assert_all_delivered(outcome)
    assert (outcome.recorded, outcome.dead) == (EVENTS + 1, 0)
    assert outcome.notes["dead_letters"] == 1


def test_every_scenario_is_tested() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [name for name in SCENARIOS if f'"{name}"' not in text] == []
