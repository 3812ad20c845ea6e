"""Build the site in both languages: the tables from the blueprints, then the pages, then their language links.

Any warning ends it with status 1. SITE_URL is the address it will have, SITE_DIR the folder it goes to.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import api_contract
import api_page
from command_output import outputs
from meterprint import Blueprint, Field, Sample, invoice
from meterprint.blueprints import BLUEPRINTS
from meterprint.event import Event, format_timestamp, parse_timestamp
from meterprint.pricing import WORDS, money
from meterprint.snippets import Recipe, find_recipes
from meterprint.tables import formula, how, table

ROOT = Path(__file__).resolve().parent.parent
INCLUDES = ROOT / "build" / "includes"
LANGUAGES = {"en": "mkdocs.yml", "sv": "mkdocs.sv.yml"}
FOLDERS = {"en": "", "sv": "sv"}
SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
LLM_CALLS = ROOT / "tests" / "llm_calls.json"
CLIENTS = {
    "openai": "`openai`",
    "anthropic": "`anthropic`",
    "gemini": "`google-genai`",
    "groq": "`groq`",
    "mistral": "`mistralai`",
    "openrouter": "`openai` → OpenRouter",
    "groq by openai": "`openai` → Groq",
    "mistral by openai": "`openai` → Mistral",
}
XHTML = "http://www.w3.org/1999/xhtml"


class Texts:
    """The words of the tables in one language. English is the key; a missing or unused translation is an error."""

    def __init__(self, language: str) -> None:
        self.language = language
        file = ROOT / "docs" / f"tables.{language}.toml"
        self.translations: dict[str, str] = {} if language == "en" else tomllib.loads(file.read_text(encoding="utf-8"))
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def __call__(self, text: str) -> str:
        """The text in this language."""
        self.used.add(text)
        if self.language == "en":
            return text
        if text not in self.translations:
            self.missing.add(text)
        return self.translations.get(text, text)

    def number(self, text: str) -> str:
        """A number as this language writes it: 1,234.5 in English."""
        return text.translate({"sv": str.maketrans(",.", "\u00a0,")}.get(self.language, {}))

    def microseconds(self, values: list[float]) -> str:
        """The median of some durations, to three digits."""
        value = median(values)
        return (
            self.number(f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}")
            + "\u00a0µs"
        )

    def share(self, part: float) -> str:
        """A part of a whole, in percent."""
        return f"{part:.0%}" if self.language == "en" else f"{part * 100:.0f}\u00a0%"

    def money(self, minor: int, currency: str) -> str:
        """An amount as this language writes it, on one line."""
        return self.number(money(minor, currency)).replace(" ", "\u00a0")

    def sum(self, text: str) -> str:
        """An invoice line's explanation such as `2,500 - 1,000 free = ...`, with its words in this language."""
        longest_first = sorted(WORDS, key=len, reverse=True)
        words = re.sub(rf"\b({'|'.join(longest_first)})\b", lambda match: self(match[0]), self.number(text))
        return words.replace(" x ", " × ").replace(" - ", " − ")

    def check(self) -> None:
        """End the build where the translations and the tables part."""
        for word in WORDS:  # any price may need them, whether a blueprint has one such or not
            self(word)
        unused = self.translations.keys() - self.used
        for text in sorted(self.missing):
            print(f"docs/tables.{self.language}.toml lacks: {json.dumps(text)}", file=sys.stderr)
        for text in sorted(unused):
            print(f"docs/tables.{self.language}.toml has, but no table uses: {json.dumps(text)}", file=sys.stderr)
        if self.missing or unused:
            raise SystemExit(1)


def main() -> None:
    """Build everything, or say what is wrong."""
    os.chdir(ROOT)
    site = Path(os.environ.setdefault("SITE_DIR", "site"))
    os.environ["SITE_DIR_SV"] = str(site / "sv")
    if "SITE_URL" in os.environ:
        os.environ["SITE_URL_SV"] = os.environ["SITE_URL"] + "sv/"
    write_includes()
    for language, config in LANGUAGES.items():
        print(f"building the {language} pages ...", file=sys.stderr)
        build_pages(config)
    link_languages(site)
    shutil.copy(api_contract.FILE, site)


def write_includes() -> None:
    """Write what the pages include from the blueprints and from the recorded runs."""
    for language in LANGUAGES:
        texts = Texts(language)
        write(f"{language}/overview.md", overview(texts))
        for name, text in api_page.includes(api_contract.Contract.load(), texts).items():
            write(f"{language}/{name}", text)
        write(f"{language}/llm/counted.md", llm_counted(texts))
        write(f"{language}/llm/calls.md", llm_calls(texts))
        write(f"{language}/llm/speed.md", llm_speed(texts))
        write(f"{language}/delivery_speed.md", delivery_speed(texts))
        write(f"{language}/reliability_compared.md", reliability(texts, compared=True))
        write(f"{language}/reliability_ours.md", reliability(texts, compared=False))
        for blueprint in BLUEPRINTS.values():
            for name, text in tables(blueprint, texts).items():
                write(f"{language}/{blueprint.slug}/{name}.md", text)
        for recipe in find_recipes(ROOT):
            write(f"{language}/{recipe.name}.md", recipe_readings(recipe, texts))
        for blueprint in BLUEPRINTS.values():
            write(f"{language}/{blueprint.slug}/recipes.md", recipes(blueprint, texts))
        texts.check()
    write("cli/serve.txt", help_of("serve"))
    for name, text in outputs().items():
        write(f"cli/{name}.txt", text)
    for blueprint in BLUEPRINTS.values():
        write(f"{blueprint.slug}/event.json", dump(sample_event(blueprint).to_wire()))
        write(f"{blueprint.slug}/meters.json", dump([meter.to_wire() for meter in blueprint.meters]))


def recipe_readings(recipe: Recipe, texts: Texts) -> str:
    """What each meter reads of what a recipe leaves."""
    readings = json.loads(recipe.ledger.read_text(encoding="utf-8"))["meters"]
    units = {meter.name: meter.measurement_unit for meter in recipe.blueprint.meters}
    rows = [(texts(name), texts.number(f"{int(value):,}"), texts(units[name])) for name, value in readings.items()]
    return table((texts("Meter"), texts("Reading"), texts("Unit")), rows, align="lrl")


def recipes(blueprint: Blueprint, texts: Texts) -> str:
    """What each recipe of a blueprint leaves: its events, and the readings of all meters."""
    rows = []
    for recipe in find_recipes(ROOT):
        if recipe.blueprint is blueprint:
            left = json.loads(recipe.ledger.read_text(encoding="utf-8"))
            readings = [texts.number(f"{int(left['meters'][meter.name]):,}") for meter in blueprint.meters]
            rows.append((f"`{recipe.folder.name}`", str(len(left["events"])), *readings))
    head = ("Recipe", "Events", *(meter.name for meter in blueprint.meters))
    return table([texts(title) for title in head], rows, align="l" + "r" * (len(head) - 1))


def results(name: str) -> dict[str, Any]:
    """What a benchmark measured, when it was last run."""
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def ours_first(name: str) -> tuple[bool, str]:
    """The order of clients in a table."""
    return not name.startswith("meterprint"), name


def delivery_speed(texts: Texts) -> str:
    """What a call costs, and how much is delivered, by client: medians over the runs."""
    measured = results("delivery")
    by_client: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for result in measured["results"]:
        by_client.setdefault(result["client"], {}).setdefault(result["kind"], []).append(result)
    titles = ["Client", "`record`, median", "99th percentile", "Arrived", "Events per second", "CPU per event"]
    titles += ["1,000,000 in one go", "Memory for them"]
    rows = [
        (client, *calls_cells(kinds["calls"], texts), *whole_cells(kinds["small"], texts), *large_cells(kinds, texts))
        for client, kinds in sorted(by_client.items(), key=lambda item: ours_first(item[0]))
    ]
    imports = {name: median(times) for name, times in measured["imports"].items()}
    ratio = (imports["meterprint"] - imports["pass"]) / (imports["httpx"] - imports["pass"])
    notes = (
        texts("\\* slowed down so that it drops nothing: else it delivers only what the column before says."),
        f"{texts('Time to import the package, as a multiple of httpx alone')}: {texts.number(f'{ratio:.2f}')}.",
    )
    return table([texts(title) for title in titles], rows, align="lrrrrrrr") + "\n" + "\n\n".join(notes) + "\n"


def calls_cells(runs: list[dict[str, Any]], texts: Texts) -> tuple[str, str, str]:
    """What a call takes, and how many of those that were made arrived, at the worst."""
    return (
        texts.microseconds([run["figures"]["p50_us"] for run in runs]),
        texts.microseconds([run["figures"]["p99_us"] for run in runs]),
        texts.share(min(run["arrived"] / run["recorded"] for run in runs)),
    )


def rate(runs: list[dict[str, Any]], texts: Texts) -> str:
    """Events per second, with a mark where the client had to be slowed down."""
    mark = "\u00a0\\*" if any(run["paced"] for run in runs) else ""
    return texts.number(f"{median(run['arrived'] / run['figures']['seconds'] for run in runs):,.0f}") + mark


def whole_cells(runs: list[dict[str, Any]], texts: Texts) -> tuple[str, str]:
    """How much is delivered, and for how much of the processor."""
    cpu = [run["figures"]["cpu_seconds"] / run["recorded"] * 1e6 for run in runs]
    return rate(runs, texts), texts.microseconds(cpu)


def large_cells(kinds: dict[str, list[dict[str, Any]]], texts: Texts) -> tuple[str, str]:
    """The same of very many, and the memory that they took."""
    if not (runs := kinds.get("large")):
        return "", ""
    memory = median(run["figures"]["memory_bytes"] for run in runs)
    return rate(runs, texts), texts.number(f"{memory / 2**20:,.0f}") + "\u00a0MB"


def reliability(texts: Texts, *, compared: bool) -> str:
    """How many events arrived, by what went wrong and by client: where others were tried too, or ours alone."""
    measured = results("reliability")
    rows: dict[str, dict[str, Any]] = measured["scenarios"]
    clients = sorted({name for cells in rows.values() for name in cells}, key=ours_first)
    others = {name for name in clients if not name.startswith("meterprint")}
    chosen = {scenario: cells for scenario, cells in rows.items() if compared == bool(others & cells.keys())}
    columns = [name for name in clients if any(name in cells for cells in chosen.values())]
    heads = [f"{name}<br>{measured['versions'][name]}" if compared else name for name in columns]
    lines = [
        (texts(scenario), *(reliability_cell(cells.get(name), texts) for name in columns))
        for scenario, cells in chosen.items()
    ]
    return table([texts("What goes wrong"), *heads], lines, align="l" + "r" * len(columns))


def reliability_cell(outcome: dict[str, Any] | None, texts: Texts) -> str:
    """What became of the events of one client, in a cell."""
    if outcome is None:
        return ""
    arrived = texts.number(f"{outcome['delivered']:,}")
    of = "" if outcome["recorded"] == 1000 else texts.number(f"\u00a0/\u00a0{outcome['recorded']:,}")
    more = f"<br>+{texts.number(format(outcome['twice'], ','))} {texts('twice')}" if outcome.get("twice") else ""
    lacks = outcome["delivered"] + outcome["dead"] < outcome["recorded"]
    return f"{arrived}{of}{more}" if lacks or more else f"**{arrived}**"


def llm_calls_made() -> dict[str, dict[str, dict[str, Any]]]:
    """How the tests called models, and what came of it: by client and by call."""
    made: dict[str, dict[str, dict[str, Any]]] = json.loads(LLM_CALLS.read_text(encoding="utf-8"))["calls"]
    return {client: made[client] for client in CLIENTS}


def llm_counted(texts: Texts) -> str:
    """What is counted of each provider's answers: a tick for a test that passed both ways and had some of it."""
    buckets = {"input": "Input", "cached": "Cached input", "written": "Cache writes"}
    buckets |= {"output": "Output", "reasoning": "Reasoning"}
    rows = []
    for client, calls in llm_calls_made().items():
        passed = [call for call in calls.values() if call["sync"] == call["async"] == "passed" and call["counted"]]
        ticks = ["✓" if any(call["counted"][bucket] for call in passed) else "–" for bucket in buckets]
        rows.append((CLIENTS[client], *ticks))
    return table((texts("Client"), *map(texts, buckets.values())), rows, align="lccccc")


def llm_calls(texts: Texts) -> str:
    """Each way of calling a model that the tests take."""
    rows = [
        (
            CLIENTS[client],
            " ".join(f"`{name}`" for name, call in calls.items() if call["counted"]),
            " ".join(f"`{name}`" for name, call in calls.items() if not call["counted"]),
            *(passed(calls, side) for side in ("sync", "async")),
        )
        for client, calls in llm_calls_made().items()
    ]
    head = ("Client", "Billed once", "Not billed", "Passed, sync", "Passed, async")
    return table([texts(title) for title in head], rows, align="lllcc")


def llm_speed(texts: Texts) -> str:
    """What metering adds to a call and to a chunk of a stream, by case: medians over the runs."""
    by_case: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results("llm")["results"]:
        if result["kind"] != "memory":
            by_case.setdefault((result["kind"], result["case"]), []).append(result["figures"])
    rows = [
        (
            case,
            texts("a call") if kind == "calls" else texts("a chunk of a stream"),
            texts.microseconds([run["alone"]["p50_us"] for run in runs]),
            *(added(runs, client, texts) for client in ("meterprint", "lago")),
        )
        for (kind, case), runs in by_case.items()
    ]
    head = ("Case", "Of", "Without metering, median", "Meterprint adds", "lago-agent-sdk adds")
    return table([texts(title) for title in head], rows, align="llrrr")


def added(runs: list[dict[str, Any]], client: str, texts: Texts) -> str:
    """What a client adds, by the median of paired differences; empty where it cannot meter the call."""
    values = [run[client]["paired_us"] for run in runs if client in run]
    return texts.microseconds(values) if values else ""


def passed(calls: dict[str, dict[str, Any]], side: str) -> str:
    """How many of the calls went well."""
    return f"{sum(call[side] == 'passed' for call in calls.values())}/{len(calls)}"


def help_of(command: str) -> str:
    """What `meterprint COMMAND --help` prints on a terminal of 80 columns."""
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    words = [sys.executable, "-m", "meterprint.cli", command, "--help"]
    text = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"


def overview(texts: Texts) -> str:
    """The comparison of all blueprints."""
    head = ("Blueprint", "Aggregation", "Common metadata", "What for")
    rows = [
        (
            f"[{texts(blueprint.title)}]({blueprint.slug.replace('_', '-')}.md)",
            "<br>".join(dict.fromkeys(how(meter) for meter in blueprint.meters)),
            ", ".join(f"`{field.name}`" for field in blueprint.events[0].fields if field.required),
            texts(blueprint.summary),
        )
        for blueprint in BLUEPRINTS.values()
    ]
    return table([texts(title) for title in head], rows)


def tables(blueprint: Blueprint, texts: Texts) -> dict[str, str]:
    """Every table of a blueprint's page, by its file name."""
    kinds = [
        f"`{kind.name}`: {texts(kind.meaning)}\n\n"
        + table(
            [texts(title) for title in ("Key", "Meaning", "Type", "Unit", "Required", "Example")],
            [
                (
                    f"`{field.name}`",
                    texts(field.meaning),
                    texts(field.type),
                    texts(field.unit) if field.unit else "",
                    texts("yes") if field.required else texts("no"),
                    f"`{json.dumps(field.example)}`",
                )
                for field in kind.fields
            ],
        )
        for kind in blueprint.events
    ]
    meters = [
        (
            texts(meter.name),
            how(meter),
            formula(meter.filter, texts) if meter.filter else texts("every event"),
            texts(meter.measurement_unit),
            texts(meter.description or ""),
        )
        for meter in blueprint.meters
    ]
    bill = invoice(blueprint.prices, blueprint.quantities)
    lines = [
        (texts(line.price.meter), texts.sum(line.explanation), texts.money(line.total, line.price.currency))
        for line in bill.lines
    ]
    lines.append((f"**{texts('Total')}**", "", f"**{texts.money(bill.total, blueprint.prices[0].currency)}**"))
    samples = [
        (
            texts.number(f"{sample.times:,}"),
            " ".join(f"`{key}={shown(sample.metadata[key])}`" for key in told(blueprint, sample)),
            "<br>".join(f"`{key}={sample.metadata[key]:,}`" for key in measured(blueprint, sample)),
        )
        for sample in blueprint.samples
    ]
    return {
        "events": "\n\n".join(kinds),
        "meters": table([texts(t) for t in ("Meter", "Aggregation", "What it counts", "Unit", "Description")], meters),
        "samples": table([texts(t) for t in ("Events", "What they say", "Amounts of each")], samples, align="rll"),
        "invoice": table([texts(t) for t in ("Meter", "How the amount comes about", "Amount")], lines, align="llr"),
    }


def differing(blueprint: Blueprint, sample: Sample) -> list[Field]:
    """The fields in which samples of one event differ."""
    (kind,) = (kind for kind in blueprint.events if kind.name == sample.event_name)
    alike = [other for other in blueprint.samples if other.event_name == sample.event_name]
    return [field for field in kind.fields if field.required and len({s.metadata[field.name] for s in alike}) > 1]


def shown(value: object) -> str:
    """A value of metadata, as in JSON but for the quotes."""
    return json.dumps(value).strip('"')


def told(blueprint: Blueprint, sample: Sample) -> list[str]:
    """What tells a sample from the others, amounts aside."""
    return [field.name for field in differing(blueprint, sample) if not field.unit and sample.metadata[field.name]]


def measured(blueprint: Blueprint, sample: Sample) -> list[str]:
    """The amounts of a sample that a meter reads, and that are not 0."""
    read = {meter.aggregation.key for meter in blueprint.meters}
    return [field.name for field in differing(blueprint, sample) if field.name in read and sample.metadata[field.name]]


def sample_event(blueprint: Blueprint) -> Event:
    """An example event, the same in each build."""
    moment = parse_timestamp("2026-11-24T09:30:00Z")
    kind = blueprint.events[0]
    return Event(Event.id_for(kind.name, format_timestamp(moment)), "cus_ada", kind.name, moment, kind.sample())


def dump(value: object) -> str:
    """A value as a page shows it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write(name: str, text: str) -> None:
    """Write an include."""
    path = INCLUDES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def build_pages(config: str) -> None:
    """Build one language. In process, because the command's own --strict does not see every warning."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import MkDocsException

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        build(load_config(config))
    except MkDocsException as error:
        raise SystemExit(f"{config}: {error}") from None


def link_languages(site: Path) -> None:
    """Link each page with its translation: in the header's menu, and in the sitemaps for search engines.

    The theme links the home pages. Its script needs the links in the head as they are, but not the attribute
    that search engines read.
    """
    for page in site.rglob("index.html"):
        place = page.relative_to(site).as_posix().removeprefix("sv/").removesuffix("index.html")
        text = page.read_text(encoding="utf-8")
        text = re.sub(r'(<link rel="alternate" href="[^"]*") hreflang="\w+"', r"\1", text)
        text = re.sub(r'(<a href="[^"]*)(" hreflang="\w+" class="md-select__link")', rf"\g<1>{place}\2", text)
        page.write_text(text, encoding="utf-8")
    ET.register_namespace("", SITEMAP)
    ET.register_namespace("xhtml", XHTML)
    trees = {language: ET.parse(site / folder / "sitemap.xml") for language, folder in FOLDERS.items()}  # noqa: S314  # just written by mkdocs
    homes = {language: min(_addresses(tree), key=len) for language, tree in trees.items()}
    for language, tree in trees.items():
        for url in tree.getroot():
            place = (url.findtext(f"{{{SITEMAP}}}loc") or "").removeprefix(homes[language])
            for other, home in homes.items():
                values = {"rel": "alternate", "hreflang": other, "href": home + place}
                ET.SubElement(url, f"{{{XHTML}}}link", values)
        tree.write(site / FOLDERS[language] / "sitemap.xml", encoding="utf-8", xml_declaration=True)


def _addresses(tree: ET.ElementTree[ET.Element]) -> list[str]:
    return [place.text or "" for place in tree.iter(f"{{{SITEMAP}}}loc")]


if __name__ == "__main__":
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    main()
