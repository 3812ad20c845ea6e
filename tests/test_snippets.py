"""Every snippet, in every language: what it prints, what it leaves, and how it fails."""

import json
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_examples import CodeExample, EvalExample

from conftest import require_tool
from meterprint import Event, MeteringClient
from meterprint.cli import LOCAL_KEY
from meterprint.local.app import create_app
from meterprint.local.server import DEFAULT_PORT, Server
from meterprint.local.store import MemoryStore, Record
from meterprint.snippets import (
    LANGUAGES,
    Outcome,
    Program,
    Recipe,
    command,
    faults,
    find_recipe,
    find_recipes,
    find_root,
    inherited,
    ledger_of,
    missing_tools,
    program_environment,
    run,
    tool_environment,
)
from meterprint.testing import MeteringAPI

ROOT = find_root()
RECIPES = find_recipes(ROOT)
PROGRAMS = [
    pytest.param(recipe, program, id=f"{recipe.name}-{program.lang}")
    for recipe in RECIPES
    for program in recipe.programs
]
FIRST_EVENT = [
    pytest.param(recipe, program, id=program.lang)
    for recipe in RECIPES
    if recipe.folder.name == "first_event"
    for program in recipe.programs
]
POLYGLOT = {"python", "httpx", "ts", "go", "curl"}
LANGUAGES_OF = {
    "api_gateway/first_event": POLYGLOT,
    "api_gateway/fastapi": {"python", "ts", "go"},
    "llm/openai_chat": POLYGLOT,
    "llm/openai_stream": {"python", "ts"},
    "llm/anthropic_messages": {"python", "ts", "go", "curl"},
    "llm/gemini": {"python", "ts"},
    "llm/vercel_ai_sdk": {"ts"},
}
RUFF_BINARY = str(Path(sys.executable).parent / "ruff")
PYTHON = sorted(path for path in (ROOT / "snippets").rglob("*.py") if not {"node_modules", "testing"} & set(path.parts))
WITHIN_LITELLM = pytest.mark.filterwarnings("ignore:Item.* using the `ReadOnly` qualifier:UserWarning")
PYTHON_FILES = [
    pytest.param(path, id=name, marks=WITHIN_LITELLM if name == "llm/litellm/complete.py" else ())
    for path in PYTHON
    for name in [str(path.relative_to(ROOT / "snippets"))]
]
RUFF = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]

every_program = pytest.mark.parametrize(("recipe", "program"), PROGRAMS)
every_first_event = pytest.mark.parametrize(("recipe", "program"), FIRST_EVENT)


def outcome_against(app: Any, recipe: Recipe, program: Program) -> Outcome:
    for tool in missing_tools([program]):
        require_tool(tool)
    with Server(app) as api, MeteringClient(api.url, LOCAL_KEY) as client:
        return run(program, recipe, client, program_environment(api.url, LOCAL_KEY))


def run_against(app: Any, recipe: Recipe, program: Program) -> list[str]:
    return faults(recipe, program, outcome_against(app, recipe, program))


class Faulty:
    """The metering API, whose ingest gives wrong answers first.

    Args:
        statuses: What the first requests to ingest are answered with.
        commit: Whether they are stored all the same, as when the answer is lost on its way.
    """

    def __init__(self, *statuses: int, commit: bool = False) -> None:
        self.store = MemoryStore()
        self._app = create_app(self.store)
        self._statuses = list(statuses)
        self._commit = commit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/events/ingest" or not self._statuses:
            await self._app(scope, receive, send)
            return
        status = self._statuses.pop(0)
        if self._commit:
            await self._app(scope, receive, _nowhere)
        else:
            while (await receive()).get("more_body"):
                pass
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"code": "FAULT", "message": "on purpose"}'})


class Poisoned(Faulty):
    """The metering API, away for two requests while events pile up; then it refuses each batch that holds one of them.

    Attributes:
        poison: The id of that event, the third of the first batch that has several; empty until then.
    """

    poison = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = scope["path"] == "/events/ingest"
        while more:
            message = await receive()
            body += message["body"]
            more = message.get("more_body", False)
        if body and not self._statuses:
            ids = [event["event_id"] for event in json.loads(body)["events"]]
            if not self.poison and len(ids) > 5:
                self.poison = ids[2]
            self._statuses = [400] if self.poison in ids else []

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await super().__call__(scope, again if body else receive, send)


async def _nowhere(message: Any) -> None:
    pass


@pytest.fixture
def forgetful_litellm() -> Iterator[None]:
    """LiteLLM keeps callbacks for the whole process: those of a snippet end with it."""
    yield
    if litellm := sys.modules.get("litellm"):
        litellm.logging_callback_manager._reset_all_callbacks()


@pytest.mark.usefixtures("forgetful_litellm")
@pytest.mark.parametrize("path", PYTHON_FILES)
def test_a_python_snippet_is_tidy_and_prints_what_it_says(
    path: Path, eval_example: EvalExample, metering_api: MeteringAPI, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    standins = program_environment(served.url, "k")
    for name in standins.keys() - {"METERING_API_URL", "METERING_API_KEY"}:
        monkeypatch.setenv(name, standins[name])
    example = CodeExample.create(path.read_text(), path=path.absolute(), prefix="python")
    eval_example.set_config(
        line_length=RUFF["line-length"],
        target_version=RUFF["target-version"],
        ruff_line_length=RUFF["line-length"],
        ruff_ignore=RUFF["lint"]["per-file-ignores"]["snippets/**"],
    )
    eval_example.lint_ruff(example)
    format_check = [RUFF_BINARY, "format", "--diff", f"--line-length={RUFF['line-length']}", "-"]
    # The formatter would put a space into #>, and leaves #: alone.
    tidy = subprocess.run(format_check, check=False, input=example.source.replace("#> ", "#: "), text=True)
    assert tidy.returncode == 0
    if eval_example.update_examples:
        eval_example.run_print_update(example)
    else:
        eval_example.run_print_check(example)
    assert metering_api.events or path.name == "errors.py"


@every_program
def test_a_program_prints_and_leaves_what_all_languages_do(recipe: Recipe, program: Program) -> None:
    assert run_against(create_app(MemoryStore()), recipe, program) == []


@every_program
def test_a_program_survives_an_api_that_is_busy(recipe: Recipe, program: Program) -> None:
    assert run_against(Faulty(503, 429), recipe, program) == []


@every_program
def test_a_program_bills_once_when_the_answer_was_lost(recipe: Recipe, program: Program) -> None:
    outcome = outcome_against(Faulty(500, commit=True), recipe, program)
    assert outcome.status == 0, outcome.errors
    assert ledger_of(outcome, recipe.blueprint) == recipe.ledger.read_text()


@pytest.mark.parametrize(
    ("lang", "call", "many"),
    [
        ("ts", 'await call("GET", "/v1/orders/7", ada);', "for (let i = 0; i < 100; i += 1) "),
        ("go", 'call(api, "GET", "/v1/orders/7", "key-of-ada", "")', "for range 100 { CALL }"),
    ],
    ids=["ts", "go"],
)
def test_one_bad_event_takes_no_other_of_its_batch_with_it(lang: str, call: str, many: str, tmp_path: Path) -> None:
    original = find_recipe(ROOT, "api_gateway/fastapi").program(lang)
    for tool in missing_tools([original]):
        require_tool(tool)
    source = original.path.read_text()
    assert source.count(call) == 1
    path = tmp_path / original.path.relative_to(ROOT / "snippets")
    path.parent.mkdir(parents=True)
    path.write_text(source.replace(call, many.replace("CALL", call) if "CALL" in many else many + call))
    for shared in ("go.mod", "metering", "metering.ts", "node_modules", "package.json"):
        (tmp_path / shared).symlink_to(ROOT / "snippets" / shared)
    api = Poisoned(503, 503)
    with Server(api) as server, MeteringClient(server.url, LOCAL_KEY) as client:
        program = Program(path, lang, original.language)
        outcome = run_program(program, program_environment(server.url, LOCAL_KEY))
        stored = {event.event_id for event in client.events()}
    assert outcome.returncode == 0, outcome.stderr
    assert api.poison
    assert f"event {api.poison} refused" in outcome.stderr
    assert api.poison not in stored
    assert len(stored) == 100  # 100 reads and one creation, less the bad one


def run_alone(program: Program, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    for tool in missing_tools([program]):
        require_tool(tool)
    outcome = run_program(program, environment)
    assert outcome.returncode not in (0, None)
    return outcome


def run_program(program: Program, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(program),
        check=False,
        env={**inherited(), **tool_environment(program.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@every_first_event
def test_a_program_says_what_the_api_refused(recipe: Recipe, program: Program) -> None:
    with Server(Faulty(401)) as api:
        outcome = run_alone(program, program_environment(api.url, "k"))
    assert "401" in outcome.stderr or "FAULT" in outcome.stderr
    assert "on purpose" in outcome.stderr
    assert outcome.stdout == ""


@every_first_event
def test_a_program_gives_up_on_an_api_that_stays_away_and_says_so(recipe: Recipe, program: Program) -> None:
    app = Faulty(*[503] * 20)
    with Server(app) as api:
        outcome = run_alone(program, program_environment(api.url, "k"))
    assert "503" in outcome.stderr or "on purpose" in outcome.stderr
    assert outcome.stdout == ""


@every_first_event
def test_a_program_survives_a_server_that_is_not_there(recipe: Recipe, program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    outcome = run_alone(program, program_environment(f"http://127.0.0.1:{port}", "k"))
    assert "refused" in outcome.stderr.lower() or "connect" in outcome.stderr.lower(), outcome.stderr
    assert outcome.stdout == ""


@every_program
def test_a_program_names_a_missing_variable(recipe: Recipe, program: Program) -> None:
    outcome = run_alone(program, {"METERING_API_KEY": "k"})
    assert "METERING_API_URL" in outcome.stderr
    assert "meterprint up" in outcome.stderr


def test_the_errors_are_the_same_in_a_process_of_their_own() -> None:
    path = ROOT / "snippets" / "errors" / "errors.py"
    said = [line.partition("#> ")[2] for line in path.read_text().splitlines() if "#> " in line]
    with Server(create_app(MemoryStore())) as api:
        outcome = run_program(Program(path, "python", LANGUAGES[".py"]), program_environment(api.url, LOCAL_KEY))
    assert (outcome.stdout.splitlines(), outcome.stderr) == (said, "")


def test_the_environment_block_of_the_pages_names_the_local_api() -> None:
    script = f'. {ROOT / "snippets" / "environment.sh"} && echo "$METERING_API_URL $METERING_API_KEY"'
    shown = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout
    assert shown == f"http://127.0.0.1:{DEFAULT_PORT} {LOCAL_KEY}\n"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_has_the_languages_that_readers_expect(recipe: Recipe) -> None:
    assert LANGUAGES_OF.get(recipe.name, {"python"}) == {program.lang for program in recipe.programs}


class Forgetful(MemoryStore):
    """Breaks idempotency: what was seen before is stored again."""

    def add_events(self, ledger: str, records: Sequence[Record]) -> Sequence[str]:
        return super().add_events(ledger, [record._replace(event_id=Event.new_id()) for record in records])


class Lossy(MemoryStore):
    """Loses a key of the metadata."""

    def add_events(self, ledger: str, records: Sequence[Record]) -> Sequence[str]:
        less = [record._replace(metadata={**record.metadata, "endpoint": "/"}) for record in records]
        return super().add_events(ledger, less)


class Silent(MemoryStore):
    """Acknowledges, and stores nothing."""

    def add_events(self, ledger: str, records: Sequence[Record]) -> Sequence[str]:
        return ()


class Broken(Faulty):
    """Like Faulty, over a store that is broken."""

    def __init__(self, store: MemoryStore, *statuses: int) -> None:
        super().__init__(*statuses, commit=True)
        self._app = create_app(store)


def first_event() -> Iterator[tuple[Recipe, Program]]:
    recipe = find_recipe(ROOT, "api_gateway/first_event")
    return ((recipe, program) for program in recipe.programs)


@pytest.mark.parametrize("store", [Forgetful, Lossy, Silent])
def test_the_check_turns_red_when_the_api_is_broken(store: type[MemoryStore]) -> None:
    recipe, program = next(first_event())
    assert run_against(Broken(store(), 500), recipe, program) != []


def test_the_check_turns_red_when_a_program_fails_prints_or_leaves_something_else(tmp_path: Path) -> None:
    recipe, program = next(first_event())
    outcome = outcome_against(create_app(MemoryStore()), recipe, program)
    elsewhere = Recipe(tmp_path, recipe.blueprint, recipe.programs)
    assert any("expected.txt is missing" in fault for fault in faults(elsewhere, program, outcome))
    (tmp_path / "expected.txt").write_text("2 events ingested\n")
    (tmp_path / "ledger.json").write_text(ledger_of(outcome, recipe.blueprint).replace("2048", "2049"))
    printed, left = faults(elsewhere, program, outcome)
    assert "-2 events ingested" in printed
    assert "2049" in left


def test_the_check_turns_red_when_an_event_departs_from_the_blueprint() -> None:
    recipe, program = next(first_event())
    outcome = outcome_against(create_app(MemoryStore()), recipe, program)
    (event,) = outcome.events
    odd = Event(event.event_id, event.customer_id, event.event_name, metadata={**event.metadata, "statusCode": 200})
    changed = type(outcome)(0, outcome.output, "", (odd,), outcome.readings)
    assert any("/metadata/statusCode: not a field" in fault for fault in faults(recipe, program, changed))
