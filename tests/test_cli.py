"""The command line, as a user runs it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from commands import CLEAN, METERPRINT, ROOT, meterprint, running
from conftest import require_tool
from meterprint import DeadLetter, Event, MeteringClient
from meterprint.blueprints import BLUEPRINTS
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.cli import LOCAL_KEY
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.snippets import find_recipe, missing_tools
from meterprint.spool import Spool, dead_letter_files, write_dead_letters


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("up",),
        ("serve",),
        ("llm", "audit"),
        ("list",),
        ("run",),
        ("apply",),
        ("verify",),
        ("demo",),
        ("new",),
        ("snippets", "check"),
        ("snippets", "update"),
        ("dead-letters", "list"),
        ("dead-letters", "show"),
        ("dead-letters", "resend"),
    ],
)
def test_the_help_of_every_command_shows_an_example(command: tuple[str, ...]) -> None:
    done = meterprint(*command, "--help")
    assert done.returncode == 0
    assert re.search(r"Examples:\s+meterprint " + " ".join(command), done.stdout), done.stdout
    assert "\x1b" not in done.stdout


def test_list_names_every_recipe_and_its_languages() -> None:
    done = meterprint("list")
    row = next(line for line in done.stdout.splitlines() if line.startswith("api_gateway/first_event"))
    assert "python, httpx, ts, go, curl" in row


def test_run_starts_an_api_of_its_own_when_none_is_there() -> None:
    done = meterprint("run", "api_gateway/first_event", environment={"METERING_API_URL": ""})
    assert done.returncode == 0, done.stderr
    assert "1 event ingested" in done.stdout
    assert '"endpoint": "/v1/orders/{order_id}"' in done.stdout
    assert re.search(r"API requests +1 request", done.stdout)
    assert re.search(r"Response bytes +2048 byte", done.stdout)


def test_run_uses_the_api_that_the_environment_names_and_leaves_its_event_there() -> None:
    recipe = find_recipe(ROOT, "api_gateway/first_event")
    for tool in missing_tools([recipe.program("go")]):
        require_tool(tool)
    with Server(create_app(MemoryStore())) as api, MeteringClient(api.url, "secret-key") as client:
        environment = {"METERING_API_URL": api.url, "METERING_API_KEY": "secret-key"}
        done = meterprint("run", "api_gateway/first_event", "--lang", "go", environment=environment)
        assert done.returncode == 0, done.stderr
        (event,) = client.events()
        assert event.event_id in done.stdout
        assert "secret-key" not in done.stdout + done.stderr
        again = meterprint("run", "api_gateway/first_event", environment=environment)
        assert "It sent 1 event\n" in again.stdout
        assert re.search(r"API requests +2 request", again.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "api_gateway/first"), "no recipe 'api_gateway/first': did you mean api_gateway/first_event?"),
        (("run", "zzz"), "`meterprint list` shows those that there are"),
        (
            ("run", "api_gateway/first_event", "--lang", "cobol"),
            "no 'cobol': choose one of python, httpx, ts, go, curl",
        ),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(words: tuple[str, ...], message: str) -> None:
    done = meterprint(*words)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_run_against_an_api_that_is_not_there_names_the_variable_and_the_command() -> None:
    done = meterprint("run", "api_gateway/first_event", environment={"METERING_API_URL": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert "METERING_API_URL=http://127.0.0.1:9" in done.stderr
    assert "meterprint up" in done.stderr


def test_outside_of_a_checkout_the_error_says_where_to_run(tmp_path: Path) -> None:
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "meterprint").symlink_to(ROOT / "src" / "meterprint")
    code = "import meterprint.snippets as s; s.__file__ = '/nowhere/s.py'; s.find_root()"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert "run this in a checkout of Meterprint" in done.stderr


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_port_in_use_is_named_with_the_option_that_changes_it(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = meterprint(command, "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is in use: choose another with --port, for example --port {port + 1}" in done.stderr


def test_a_site_port_in_use_is_named_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = meterprint("up", "--port", "0", "--site-port", str(port), "--db", str(tmp_path / "l.db"))
    assert done.returncode == 1
    assert f"port {port} is in use: choose another with --site-port" in done.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_serve_keeps_its_events_in_the_file_and_stops_cleanly(tmp_path: Path, signal_number: int) -> None:
    for expected in (1, 0):  # the second time it is a duplicate
        with running("serve", "--port", "0", "--db", "deep/usage.db", cwd=tmp_path) as (process, url):
            with MeteringClient(url, LOCAL_KEY) as client:
                event = next(BLUEPRINT.sample_events("cus_ada"))
                fixed = type(event)("always-the-same", event.customer_id, event.event_name, metadata=event.metadata)
                assert client.ingest([fixed]).ingested_count == expected
            process.send_signal(signal_number)
            assert process.wait(timeout=10) == 0
            assert process.stdout
            assert "Stopped." in process.stdout.read()
            assert process.stderr
            assert process.stderr.read() == ""
    assert (tmp_path / "deep" / "usage.db").is_file()


def test_serve_listens_on_loopback_alone(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--memory", cwd=tmp_path) as (_, url):
        port = int(url.rpartition(":")[2])
        listening = Path("/proc/net/tcp")
        if not listening.exists():
            require_tool("/proc/net/tcp")
        rows = [line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"]
        assert [row for row in rows if row.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
        assert list(tmp_path.iterdir()) == []


def test_up_serves_the_site_and_an_api_with_the_meters_of_every_blueprint(tmp_path: Path) -> None:
    words = ("up", "--port", "0", "--site-port", "0", "--db", str(tmp_path / "ledger.db"))
    with subprocess.Popen(
        [METERPRINT, *words], cwd=ROOT, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        shown = "".join(lines)
        site, api = (re.search(pattern, shown) for pattern in (r"guides +(\S+)", r"METERING_API_URL=(\S+)"))
        assert site
        assert api, shown
        assert "API gateway" in httpx.get(site[1]).text
        assert "blåkopia" in httpx.get(f"{site[1]}sv/").text
        assert httpx.get(f"{api[1]}/dashboard").status_code == 200
        every_meter = [meter for blueprint in BLUEPRINTS.values() for meter in blueprint.meters]
        with MeteringClient(api[1], LOCAL_KEY) as client:
            assert list(client.meters()) == every_meter
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0


def test_snippets_check_names_what_fails_and_update_mends_it(tmp_path: Path) -> None:
    recipe = find_recipe(ROOT, "api_gateway/first_event")
    folder = tmp_path / "snippets" / "api_gateway" / "first_event"
    folder.mkdir(parents=True)
    (tmp_path / "mkdocs.yml").touch()
    (folder / "first_event.py").write_text(recipe.program("python").path.read_text().replace("2048", "1024"))
    (folder / "expected.txt").write_text(recipe.expected.read_text())
    (folder / "ledger.json").write_text(recipe.ledger.read_text())

    done = meterprint("snippets", "check", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r'^-.*"response_bytes": 2048', done.stdout, re.M)
    assert re.search(r'^\+.*"response_bytes": 1024', done.stdout, re.M)
    assert "meterprint snippets update" in done.stderr

    assert meterprint("snippets", "update", "api_gateway/first_event", cwd=tmp_path).returncode == 0
    assert json.loads((folder / "ledger.json").read_text())["meters"]["Response bytes"] == "1024"
    assert "ok     api_gateway/first_event python" in meterprint("snippets", "check", cwd=tmp_path).stdout


def test_a_snippet_that_fails_fails_the_run_and_shows_why(tmp_path: Path) -> None:
    folder = tmp_path / "snippets" / "api_gateway" / "broken"
    folder.mkdir(parents=True)
    (tmp_path / "mkdocs.yml").touch()
    (folder / "broken.py").write_text('raise SystemExit("not metered: on purpose")\n')
    done = meterprint("run", "api_gateway/broken", cwd=tmp_path)
    assert done.returncode == 1
    assert "not metered: on purpose" in done.stderr
    assert "broken.py ended with exit status 1" in done.stderr
    assert meterprint("snippets", "update", cwd=tmp_path).returncode == 1
    assert not (folder / "ledger.json").exists()


def test_a_tool_that_is_missing_is_brought_in_or_named(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from meterprint import snippets;"
        "snippets.install_tools(Path.cwd(), {'cobol'}, print)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "cobol is not installed: get it from your system's packages" in done.stderr


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:4141", 200), ("localhost", 200), ("attacker.example", 400), ("127.0.0.1.attacker.example:80", 400)],
)
def test_only_a_request_for_this_machine_is_answered(served: Server, host: str, status: int) -> None:
    answer = httpx.get(f"{served.url}/local/health", headers={"Host": host})
    assert answer.status_code == status


# Dead letters.


@pytest.fixture
def buried(tmp_path: Path) -> Path:
    """A spool with three dead letters: one late, one that was never an event, one that is well by now."""
    folder = tmp_path / "usage"
    Spool(folder).close()
    late = Event("late", "cus_ada", "api.request", datetime(2026, 1, 1, tzinfo=UTC), {"n": 1}).to_wire()
    mended = Event("mended", "cus_ada", "api.request", metadata={"n": 2}).to_wire()
    write_dead_letters(folder, [DeadLetter(late, "INVALID_TIMESTAMP", "older than 1 hour")])
    bad = DeadLetter({"event_id": "bad", "metadata": {"[n]": None}}, "INVALID_METADATA", "/metadata/[n]: null")
    write_dead_letters(folder, [bad, DeadLetter(mended, "INVALID_METADATA", "refused")])
    return folder


def letters_in(folder: Path) -> set[str]:
    return {letter.event_id for _, letters in dead_letter_files(folder) for letter in letters}


def test_dead_letters_are_listed_and_shown(buried: Path) -> None:
    listed = meterprint("dead-letters", "list", "--spool", str(buried)).stdout
    assert all(word in listed for word in ("late", "mended", "cus_ada", "INVALID_TIMESTAMP: older than 1 hour"))
    shown = meterprint("dead-letters", "show", "bad", "--spool", str(buried)).stdout
    assert json.loads(shown)["event"] == {"event_id": "bad", "metadata": {"[n]": None}}
    for command in ("show", "resend"):
        missing = meterprint("dead-letters", command, "nobody", "--spool", str(buried))
        assert missing.returncode == 1
        assert "no dead letter nobody" in missing.stderr


def test_dead_letters_that_are_taken_are_removed_and_the_others_stay(buried: Path) -> None:
    store = MemoryStore()
    with Server(create_app(store)) as api:
        environment = {"METERING_API_URL": api.url, "METERING_API_KEY": "k"}
        done = meterprint("dead-letters", "resend", "--spool", str(buried), environment=environment)
        assert done.returncode == 1
        assert "1 delivered, 2 refused" in done.stdout
        assert "late: 2026-01-01T00:00:00.000000Z is older than 1 hour" in done.stdout
        assert letters_in(buried) == {"late", "bad"}
        done = meterprint(
            "dead-letters", "resend", "late", "--restamp", "--spool", str(buried), environment=environment
        )
        assert (done.returncode, done.stdout) == (0, "1 delivered, 0 refused\n")
        with MeteringClient(api.url, "k") as client:
            events = {event.event_id: event for event in client.events()}
    assert letters_in(buried) == {"bad"}
    assert events["late"].metadata == {"n": 1, "original_timestamp": "2026-01-01T00:00:00.000000Z"}
    assert set(events) == {"late", "mended"}


def test_a_folder_that_is_no_spool_is_named(tmp_path: Path) -> None:
    done = meterprint("dead-letters", "list", "--spool", str(tmp_path))
    assert done.returncode == 1
    assert "is no spool: name the folder that a recorder has as spool=" in done.stderr


def test_the_commands_on_the_page_run_as_they_are(tmp_path: Path) -> None:
    Spool(tmp_path / "usage").close()
    event = Event("order-7", "cus_ada", "api.request").to_wire()
    write_dead_letters(tmp_path / "usage", [DeadLetter(event, "INVALID_METADATA", "refused")])
    with Server(create_app(MemoryStore())) as api:
        path = f"{Path(METERPRINT).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**CLEAN, "PATH": path, "METERING_API_URL": api.url, "METERING_API_KEY": "k"}
        script = ["bash", "-e", str(ROOT / "snippets" / "delivery" / "dead_letters.sh")]
        done = subprocess.run(script, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 delivered, 0 refused\n")
    assert letters_in(tmp_path / "usage") == set()
