"""`meterprint new`: a blueprint of one's own, as files that pass at once."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import CLEAN, meterprint
from meterprint import (
    Aggregation,
    Blueprint,
    Condition,
    ConfigurationError,
    EventType,
    Field,
    Filter,
    Meter,
    MeteringClient,
    Price,
    Sample,
    Tier,
)
from meterprint.blueprints import BLUEPRINTS
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.cli import LOCAL_KEY
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.scaffold import definition, files, name_fault, renamed
from meterprint.verify import faults

RUFF = str(Path(sys.executable).parent / "ruff")
ALL_TYPES = EventType(
    "model.call",
    "Once for each answer, in full.",
    (
        Field("model", "string", 'The "model", by its maker\'s name.', 'say "hi"'),
        Field(
            "input_tokens", "integer", "What was read, whatever it came from: prompt, files, tools.", 12_000, "tokens"
        ),
        Field("cost_usd", "number", "What it cost us.", 0.000_001_5, "usd"),
        Field("is_cached", "boolean", "Whether it came from the cache.", example=True),
        Field(
            "région",
            "string",
            "Où, en français; 日本語の長い説明文がここに入ります、とても長いので折り返します。",
            "東京",
            required=False,
        ),
    ),
)
PING = EventType("ping", "Once a minute.", ())
DEEP = Filter("or", (Filter("and", (Filter("or", (Filter("and", (Condition("is_cached", "equals", True),)),)),)),))
RICH = Blueprint(
    slug="rich",
    title="Rich",
    summary="Everything that a definition can hold.",
    events=(ALL_TYPES, PING),
    meters=(
        Meter("Calls", "model.call", Aggregation("count"), "call", filter=DEEP),
        Meter("Tokens", "model.call", Aggregation("sum", "input_tokens"), "token", description="With | and `ticks`."),
        Meter("Dearest", "model.call", Aggregation("max", "cost_usd"), "usd"),
        Meter("Latest", "model.call", Aggregation("last", "input_tokens"), "token"),
        Meter("Pings", "ping", Aggregation("count"), "ping"),
    ),
    prices=(
        Price(
            "Tokens",
            tiers=(Tier(Decimal(10_000), Decimal("0.5")), Tier(None, Decimal("0.25"), Decimal(30))),
            mode="graduated",
        ),
        Price("Calls", Decimal(150), package_size=Decimal(2)),
        Price("Pings", tiers=(Tier(Decimal(1), Decimal(1)), Tier(None, Decimal("0.1"))), mode="volume"),
    ),
    samples=(
        Sample("model.call", ALL_TYPES.sample(), times=3),
        Sample("model.call", ALL_TYPES.sample(is_cached=False, input_tokens=7, région="x"), times=2),
        Sample("ping", {}, times=10),
    ),
    quantities={
        "Calls": Decimal(3),
        "Tokens": Decimal(36_014),
        "Dearest": Decimal("0.0000015"),
        "Latest": Decimal(7),
        "Pings": Decimal(10),
    },
    invoice_total=11_835,
)
EACH = pytest.mark.parametrize("blueprint", [*BLUEPRINTS.values(), RICH], ids=[*BLUEPRINTS, "rich"])


def write(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def pytest_in(folder: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(words, check=False, cwd=cwd, env=CLEAN, capture_output=True, text=True)


def test_the_rich_blueprint_agrees_with_itself() -> None:
    assert faults(RICH) == []


@EACH
def test_the_definition_that_is_written_is_the_value_that_it_came_from(blueprint: Blueprint, tmp_path: Path) -> None:
    write(tmp_path / "mine", files(blueprint, "mine"))
    value = runpy.run_path(str(tmp_path / "mine" / "mine.py"))["BLUEPRINT"]
    assert value == renamed(blueprint, "mine")
    assert faults(value) == []


@EACH
def test_what_is_written_is_formatted_and_lints(blueprint: Blueprint, tmp_path: Path) -> None:
    write(tmp_path / "mine", files(blueprint, "mine"))
    for words in (["format", "--diff"], ["check", "--extend-select", "I,UP,B,SIM,C4,PT"]):
        command = [RUFF, *words, "--isolated", "."]
        done = subprocess.run(command, check=False, cwd=tmp_path / "mine", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@EACH
def test_what_is_written_passes_its_own_tests(blueprint: Blueprint, tmp_path: Path) -> None:
    # As in a checkout of ours, whose configuration of pytest must not reach in.
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\n')
    write(tmp_path / "mine", files(blueprint, "mine"))
    done = pytest_in(tmp_path / "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


@EACH
def test_no_meter_counts_the_events_of_both(blueprint: Blueprint) -> None:
    for name in ("mine", "api", "model", "ping"):
        custom = renamed(blueprint, name)
        assert not {kind.name for kind in custom.events} & {kind.name for kind in blueprint.events}
        assert not {meter.name for meter in custom.meters} & {meter.name for meter in blueprint.meters}


def test_names_that_would_be_the_same_stay_apart() -> None:
    kinds = tuple(EventType(name, "Once.", ()) for name in ("a.run", "b.run", "b.stop", "9-lives"))
    custom = renamed(replace(BLUEPRINT, events=kinds), "mine")
    assert [kind.name for kind in custom.events] == ["mine.a.run", "mine.b.run", "mine.b.stop", "mine.9-lives"]
    names = [line.partition(" =")[0] for line in definition(custom).splitlines() if "= EventType(" in line]
    assert names == ["MINE_A_RUN", "MINE_B_RUN", "MINE_B_STOP", "MINE_9_LIVES"]
    alike = replace(BLUEPRINT, events=tuple(EventType(name, "Once.", ()) for name in ("a-b", "a_b", "é")), samples=())
    assert "EVENT_3 = EventType(" in definition(alike)


@given(st.text())
def test_any_text_is_written_as_it_is(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    module = ast.parse(definition(replace(BLUEPRINT, summary=text)))
    values = [node.value for node in ast.walk(module) if isinstance(node, ast.keyword) and node.arg == "summary"]
    assert ast.literal_eval(values[0]) == text


def test_a_sample_that_departs_from_the_examples_is_written_whole() -> None:
    odd = replace(BLUEPRINT, samples=(Sample("api.request", {"odd-key": 1, "class": "x"}), Sample("other", {"n": 1})))
    values: dict[str, Blueprint] = {}
    exec(definition(odd), values)
    assert values["BLUEPRINT"] == odd


def test_what_cannot_be_written_is_named() -> None:
    odd = replace(BLUEPRINT, invoice_total=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="cannot be written as Python: copy its file by hand"):
        definition(odd)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Orders", "write it in snake_case, for example orders_api"),
        ("orders-api", "write it in snake_case"),
        ("9lives", "write it in snake_case"),
        ("a__b", "write it in snake_case"),
        ("../evil", "write it in snake_case"),
        ("class", "a word of Python's own"),
        ("api_gateway", "a blueprint has that name"),
        ("json", "a Python package has that name"),
        ("httpx", "a Python package has that name"),
        ("meterprint", "a Python package has that name"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason(name: str, reason: str, tmp_path: Path) -> None:
    assert reason in (name_fault(name) or "")


def test_new_writes_a_folder_that_verify_takes_by_its_path(tmp_path: Path) -> None:
    done = meterprint("new", "orders_api", "--from", "api_gateway", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert commands == [
        "pytest orders_api",
        "meterprint apply orders_api/orders_api.py",
        "meterprint verify orders_api/orders_api.py",
    ]
    with Server(create_app(MemoryStore())) as api:
        environment = {"METERING_API_URL": api.url, "METERING_API_KEY": LOCAL_KEY}
        for command in commands[1:]:
            done = meterprint(*command.split()[1:], environment=environment, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert "Orders api: API requests" in done.stdout
        assert meterprint("verify", "orders_api", environment=environment, cwd=tmp_path).returncode == 0
        snippet = [sys.executable, "orders_api/send_event.py"]
        sent = subprocess.run(
            snippet, check=True, cwd=tmp_path, env={**CLEAN, **environment}, capture_output=True, text=True
        )
        assert sent.stdout == "1 event ingested\n"
        with MeteringClient(api.url, LOCAL_KEY) as client:
            assert {event.event_name for event in client.events()} == {"orders_api.request"}


def test_new_overwrites_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    page = tmp_path / "mine" / "orders_api.md"
    page.parent.mkdir()
    page.write_text("mine")
    done = meterprint("new", "orders_api", "--from", "api_gateway", "--into", "mine", cwd=tmp_path)
    assert done.returncode == 1
    assert "mine/orders_api.md exists already: give another folder with --into" in done.stderr
    assert page.read_text() == "mine"
    assert list(page.parent.iterdir()) == [page]


def test_a_wrong_name_or_source_writes_nothing(tmp_path: Path) -> None:
    for words, message in (
        (("new", "Orders", "--from", "api_gateway"), "'Orders' cannot be its name"),
        (("new", "orders", "--from", "api_gatewy"), "did you mean api_gateway?"),
        (("new", "orders", "--from", "api_gateway", "--into", "/proc/nowhere"), "cannot write to /proc/nowhere"),
    ):
        done = meterprint(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_definition_and_a_page_that_part_fail_the_tests(tmp_path: Path) -> None:
    texts = files(BLUEPRINT, "mine")
    changed = texts["mine.py"].replace('"Mine: Orders created", Decimal(1)', '"Mine: Orders created", Decimal(2)')
    assert changed != texts["mine.py"]
    write(tmp_path / "mine", {**texts, "mine.py": changed})
    done = pytest_in(tmp_path / "mine", cwd=tmp_path)
    assert "3 failed, 1 passed" in done.stdout
    assert "put into mine.md:" in done.stdout
    assert "60 x 2 cents = 1.20 USD" in done.stdout


def test_a_blueprint_of_ones_own_can_be_the_source_of_another(tmp_path: Path) -> None:
    write(tmp_path / "orders", files(BLUEPRINT, "orders"))
    assert meterprint("new", "returns", "--from", "orders/orders.py", cwd=tmp_path).returncode == 0
    assert pytest_in(tmp_path / "returns", cwd=tmp_path).returncode == 0
