"""Find the snippets, run them against a metering API, and hold them to what they must print and leave."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .blueprint import Blueprint
from .blueprints import BLUEPRINTS
from .client import KEY_VARIABLE, URL_VARIABLE, MeteringClient
from .errors import ConfigurationError, MeterprintError, ValidationError
from .event import OLDEST, Event, utc_now

TIMEOUT = 120.0  # seconds that one program may take, the first compilation of Go included
MEASURED = "(measured)"
STAND_IN = "stand-in"  # the key of a provider that is stood in for
_LOCKED_TOOLS = frozenset({"go", "node", "npm"})


class Provider(NamedTuple):
    """A provider of models.

    Attributes:
        keys: The variables in which its SDK looks for a key.
        address: The variable in which it looks for an address.
        standin: The path of its stand-in, from the address of the local metering API.
    """

    keys: tuple[str, ...]
    address: str
    standin: str


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(("OPENAI_API_KEY",), "OPENAI_BASE_URL", "/standins/openai/v1"),
    "anthropic": Provider(("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL", "/standins/anthropic"),
    "gemini": Provider(("GEMINI_API_KEY", "GOOGLE_API_KEY"), "GOOGLE_GEMINI_BASE_URL", "/standins/gemini"),
    "groq": Provider(("GROQ_API_KEY",), "GROQ_BASE_URL", "/standins/groq"),
    "openrouter": Provider(("OPENROUTER_API_KEY",), "OPENROUTER_BASE_URL", "/standins/openrouter/v1"),
}
_SET_HERE = {URL_VARIABLE, KEY_VARIABLE}.union(*((*provider.keys, provider.address) for provider in PROVIDERS.values()))


@dataclass(frozen=True, slots=True)
class Language:
    """How programs of one language are run.

    Attributes:
        key: What `--lang` takes.
        title: Its name for people.
        tool: The program that runs it; None for this Python.
        command: The words before the file's name; `{folder}` is where the file is.
    """

    key: str
    title: str
    tool: str | None = None
    command: tuple[str, ...] = ()


# To add a language: a line here, a program in each recipe, a tab on each page (CONTRIBUTING.md).
LANGUAGES: Mapping[str, Language] = {
    ".py": Language("python", "Python"),
    ".ts": Language("ts", "TypeScript", "node"),
    ".go": Language("go", "Go", "go", ("run", "-C", "{folder}")),
    ".sh": Language("curl", "curl", "bash"),
}


@dataclass(frozen=True, slots=True)
class Program:
    """One runnable file of a recipe.

    Attributes:
        path: The file.
        lang: What `--lang` takes: the language, or the last part of the file's name where one language has several.
        language: How it is run.
    """

    path: Path
    lang: str
    language: Language


@dataclass(frozen=True, slots=True)
class Recipe:
    """One idea, in one program per language, which all print the same and leave the same ledger.

    Attributes:
        folder: `snippets/<blueprint>/<recipe>`.
        blueprint: Whose events it sends.
        programs: The reference first: Python, where there is one.
    """

    folder: Path
    blueprint: Blueprint
    programs: tuple[Program, ...]

    @property
    def name(self) -> str:
        """`<blueprint>/<recipe>`, as `meterprint run` takes it."""
        return f"{self.blueprint.slug}/{self.folder.name}"

    @property
    def expected(self) -> Path:
        """What each program prints."""
        return self.folder / "expected.txt"

    @property
    def ledger(self) -> Path:
        """What each program leaves: its events, and what the meters read of them."""
        return self.folder / "ledger.json"

    def program(self, lang: str) -> Program:
        """The program in a language.

        Raises:
            ConfigurationError: There is none; the message names those that there are.
        """
        for program in self.programs:
            if lang in (program.lang, program.path.suffix.lstrip(".")):
                return program
        known = ", ".join(program.lang for program in self.programs)
        raise ConfigurationError(f"{self.name} has no {lang!r}: choose one of {known}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a program did.

    Attributes:
        status: Its exit status.
        output: What it printed.
        errors: What it wrote to standard error.
        events: The events that it sent, oldest first.
        readings: What each meter of the blueprint reads in the ledger that it wrote to, by name.
    """

    status: int
    output: str
    errors: str
    events: tuple[Event, ...]
    readings: Mapping[str, str]


def find_root() -> Path:
    """The checkout: at or above the working folder, else the one that this package runs from.

    Raises:
        ConfigurationError: There is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents):
        if (folder / "snippets").is_dir() and (folder / "mkdocs.yml").is_file():
            return folder
    raise ConfigurationError("no snippets here: run this in a checkout of Meterprint")


def find_recipes(root: Path) -> list[Recipe]:
    """All recipes of a checkout, by name."""
    recipes: list[Recipe] = []
    for slug, blueprint in BLUEPRINTS.items():
        for folder in sorted((root / "snippets" / slug).glob("*/")):
            files = [file for suffix in LANGUAGES for file in sorted(folder.glob(f"*{suffix}"))]
            if files:
                recipes.append(Recipe(folder, blueprint, tuple(_programs(files))))
    return recipes


def find_recipe(root: Path, name: str) -> Recipe:
    """The recipe of this name, `<blueprint>/<recipe>`.

    Raises:
        ConfigurationError: There is none; the message names the nearest.
    """
    recipes = {recipe.name: recipe for recipe in find_recipes(root)}
    if name in recipes:
        return recipes[name]
    near = difflib.get_close_matches(name, recipes, n=1, cutoff=0.4)
    advice = f"did you mean {near[0]}?" if near else "`meterprint list` shows those that there are"
    raise ConfigurationError(f"no recipe {name!r}: {advice}")


def _programs(files: list[Path]) -> Iterator[Program]:
    stem = min((file.stem for file in files), key=len)
    for file in files:
        language = LANGUAGES[file.suffix]
        yield Program(file, file.stem.removeprefix(stem).lstrip("_") or language.key, language)


def run(program: Program, recipe: Recipe, client: MeteringClient, environment: Mapping[str, str]) -> Outcome:
    """Run a program, and see what it left in the ledger of the client's key.

    Args:
        program: What to run.
        recipe: The recipe that it is part of.
        client: Looks into the ledger.
        environment: What the program finds in its environment, as from `program_environment`, beside what is inherited.

    Raises:
        ConfigurationError: The tool of its language is missing.
        MeterprintError: It took longer than 2 minutes.
    """
    meters = client.ensure_meters(recipe.blueprint.meters)
    since = utc_now() - OLDEST  # no program can send an older event: the API refuses it
    before = {event.event_id for event in client.events(start=since)}
    try:
        done = subprocess.run(
            command(program),
            check=False,
            env={**inherited(), **tool_environment(program.path), **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise MeterprintError(f"{program.path.name} did not end within {TIMEOUT:g} s") from None
    sent = tuple(event for event in client.events(start=since) if event.event_id not in before)[::-1]
    readings = {meter.name: f"{client.usage(meter.id or ''):f}" for meter in meters}
    return Outcome(done.returncode, done.stdout, done.stderr, sent, readings)


def ledger_of(outcome: Outcome, blueprint: Blueprint) -> str:
    """What a run left, as the text of ledger.json: without ids and times, and what is measured left out."""
    measured = {(kind.name, field.name) for kind in blueprint.events for field in kind.fields if field.measured}
    events = [
        {
            "customer_id": event.customer_id,
            "event_name": event.event_name,
            "metadata": {
                key: MEASURED if (event.event_name, key) in measured else value
                for key, value in sorted(event.metadata.items())
            },
        }
        for event in outcome.events
    ]
    events.sort(key=lambda event: json.dumps(event, sort_keys=True))
    return json.dumps({"events": events, "meters": dict(outcome.readings)}, indent=2, ensure_ascii=False) + "\n"


def faults(recipe: Recipe, program: Program, outcome: Outcome) -> list[str]:
    """Where a run departs from what it must print and leave; empty if nowhere."""
    if outcome.status != 0:
        return [f"exit status {outcome.status}\n{outcome.errors or outcome.output}".rstrip()]
    found: list[str] = []
    for event in outcome.events:
        try:
            recipe.blueprint.check(event)
        except ValidationError as error:
            found.append(f"event {event.event_id}: {error}")
    for path, text in ((recipe.expected, outcome.output), (recipe.ledger, ledger_of(outcome, recipe.blueprint))):
        if difference := _difference(path, text, program.path.name):
            found.append(difference)
    return found


def _difference(path: Path, text: str, name: str) -> str:
    if not path.is_file():
        return f"{path.name} is missing: write it with `meterprint snippets update`"
    wanted = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(difflib.unified_diff(wanted, text.splitlines(), path.name, f"of {name}", lineterm=""))


def find_tool(name: str) -> str | None:
    """The path of a tool. Go and Node.js are those of this Python's environment: others may be too old."""
    path = str(Path(sys.executable).parent) if name in _LOCKED_TOOLS else None
    return shutil.which(name, path=path)


def missing_tools(programs: Sequence[Program]) -> set[str]:
    """What these programs need and this machine does not have: names of tools, and `packages` for npm's."""
    missing = {tool for program in programs if (tool := program.language.tool) and not find_tool(tool)}
    typescript = [program for program in programs if program.path.suffix == ".ts"]
    if typescript and not (_snippets(typescript[0].path) / "node_modules").is_dir():
        missing.add("packages")
    return missing


def install_tools(root: Path, missing: set[str], say: Callable[[str], None]) -> None:
    """Bring Go, Node.js and npm's packages into the project's environment, from the locks.

    Raises:
        ConfigurationError: One of them cannot be brought in; the message says how to get it.
    """
    if others := missing - {*_LOCKED_TOOLS, "packages"}:
        raise ConfigurationError(f"{', '.join(sorted(others))} is not installed: get it from your system's packages")
    if missing & _LOCKED_TOOLS:
        say("Installing Go and Node.js into the project's environment (about 140 MB, once) ...")
        _install(root, "uv", "sync", "--locked", "--inexact", "--no-default-groups", "--group", "polyglot")
    if "packages" in missing:
        say("Installing the npm packages of the snippets ...")
        _install(root, "npm", "ci", "--no-fund", "--no-audit", "--prefix", "snippets")


def _install(root: Path, tool: str, *words: str) -> None:
    command = [find_tool(tool) or tool, *words]
    environment = {**os.environ, **tool_environment(root), "UV_PROJECT_ENVIRONMENT": sys.prefix}
    try:
        subprocess.run(command, cwd=root, env=environment, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"{' '.join([tool, *words])} failed ({error}): check the network, or run `make setup`"
        ) from None


def tool_environment(path: Path) -> dict[str, str]:
    """The environment variables that keep a snippet's tools inside the checkout and off the network."""
    cache = next((p for p in (path, *path.parents) if (p / "mkdocs.yml").is_file()), path.parent) / ".cache"
    return {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "GOCACHE": str(cache / "go-build"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
    }


def command(program: Program) -> list[str]:
    """The words that run a program.

    Raises:
        ConfigurationError: The tool of its language is missing.
    """
    tool = program.language.tool
    executable = sys.executable if tool is None else find_tool(tool)
    if executable is None:
        raise ConfigurationError(f"{tool} is not installed: `make setup` brings it, or your system's packages")
    path = program.path.absolute()
    return [executable, *(word.format(folder=path.parent) for word in program.language.command), str(path)]


def _snippets(path: Path) -> Path:
    return next(folder for folder in path.parents if folder.name == "snippets")


def inherited() -> dict[str, str]:
    """The environment of this process, without what says where programs send events and ask models."""
    return {name: value for name, value in os.environ.items() if name not in _SET_HERE}


def program_environment(url: str, key: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that a snippet reads.

    Args:
        url: Where the metering API is, with the stand-ins for providers of models.
        key: The key for it.
        own: Variables of the user: a provider whose key is in here is asked itself.
    """
    environment = {URL_VARIABLE: url, KEY_VARIABLE: key}
    for provider in PROVIDERS.values():
        if own and any(own.get(name) for name in provider.keys):
            environment |= {name: own[name] for name in (*provider.keys, provider.address) if own.get(name)}
        else:
            environment |= {provider.keys[0]: STAND_IN, provider.address: f"{url.rstrip('/')}{provider.standin}"}
    return environment


def stood_in(program: Program, environment: Mapping[str, str]) -> list[str]:
    """The variables for whose want a program asks stand-ins.

    Args:
        program: What is to run.
        environment: What it will find, from `program_environment`.
    """
    text = program.path.read_text(encoding="utf-8").lower()
    by_key = [name for name, provider in PROVIDERS.items() if any(key.lower() in text for key in provider.keys)]
    named = by_key or [name for name in PROVIDERS if name in text]
    keys = [PROVIDERS[name].keys[0] for name in named]
    return [key for key in keys if environment.get(key) == STAND_IN]


def summary(recipe: Recipe) -> str:
    """What a recipe shows: the first line of its reference program."""
    first = recipe.programs[0].path.read_text(encoding="utf-8").partition("\n")[0]
    return first.strip('"/ ')
