"""What a page of the site may hold: prose and includes. Each function gives the faults that it finds."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

INCLUDE = re.compile(r'^\s*--8<-- "(?P<path>[^":]+)(:(?P<section>[\w-]+))?"\s*$', re.M)
FENCE = re.compile(
    r"^(?P<indent>\s*)(?P<marks>`{3,}|~{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^\s*(?P=marks)\s*$", re.M | re.S
)
MARK = re.compile(r"--8<-- \[(?P<kind>start|end):(?P<name>[\w-]+)\]")
HEADING = re.compile(r"^(?P<level>#{1,6}) .*?(\{ #(?P<anchor>[\w-]+) \})?$", re.M)
DIGEST = re.compile(r'^source_digest: "(?P<digest>[0-9a-f]{16})"$', re.M)


def typed_code(page: str) -> list[str]:
    """Code blocks of a page that hold anything but includes."""
    blocks = (match["body"] for match in FENCE.finditer(page))
    return [block for block in blocks if INCLUDE.sub("", block).strip()]


def broken_includes(page: str, bases: Iterable[Path]) -> list[str]:
    """Includes of a page that name no file, or no section of it."""
    faults: list[str] = []
    for match in INCLUDE.finditer(page):
        files = [base / match["path"] for base in bases if (base / match["path"]).is_file()]
        if not files:
            faults.append(f"no file {match['path']}")
        elif match["section"] and match["section"] not in sections(files[0].read_text(encoding="utf-8")):
            faults.append(f"no section {match['section']} in {match['path']}")
    return faults


def sections(text: str) -> list[str]:
    """The names of the sections that a snippet opens."""
    return [match["name"] for match in MARK.finditer(text) if match["kind"] == "start"]


def section_faults(text: str, used: Iterable[str]) -> list[str]:
    """Sections of a snippet that are not closed once after their start, not unique, or on no page."""
    marks = [(match["kind"], match["name"]) for match in MARK.finditer(text)]
    faults = [f"{kind}:{name} stands {n} times" for (kind, name), n in Counter(marks).items() if n > 1]
    names = {name for _, name in marks}
    for name in sorted(names):
        order = [kind for kind, other in marks if other == name]
        if sorted(set(order), reverse=True) != ["start", "end"] or order[0] != "start":
            faults.append(f"{name} is not opened and then closed")
        if name not in used:
            faults.append(f"{name} is on no page")
    return faults


def unused_snippets(files: Iterable[str], pages: Iterable[str]) -> list[str]:
    """Snippets that no page includes."""
    included = {match["path"] for page in pages for match in INCLUDE.finditer(page)}
    return sorted(set(files) - included)


def shape(page: str, language: str) -> list[str]:
    """What both languages of a page must share: headings with their anchors, and includes, in order."""
    found: list[tuple[int, str]] = []
    prose = FENCE.sub(lambda match: re.sub(r"(?m)^#", " ", match[0]), page)
    found += [(match.start(), f"{match['level']} {match['anchor'] or ''}".strip()) for match in HEADING.finditer(prose)]
    for match in INCLUDE.finditer(page):
        path = match["path"].removeprefix(f"{language}/")
        found.append((match.start(), f"{path}:{match['section'] or ''}"))
    links = re.finditer(r"^::: (\S+)|\]\(([^)]+)\)", page, re.M)
    found += [(match.start(), match[1] or match[2]) for match in links]
    return [text for _, text in sorted(found)]


def headings_without_anchor(page: str) -> list[str]:
    """Headings below the title whose anchor would differ between languages."""
    prose = FENCE.sub("", page)
    return [match[0] for match in HEADING.finditer(prose) if len(match["level"]) > 1 and not match["anchor"]]


def digest(source: Path) -> str:
    """What a translation records of its source."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def stale(sources: Mapping[str, Path], translations: Mapping[str, Path]) -> list[str]:
    """Pages that have no translation, or one of an older source."""
    faults = [f"{name} has no source" for name in translations.keys() - sources.keys()]
    for name, source in sources.items():
        if name not in translations:
            faults.append(f"{name} is not translated")
            continue
        recorded = DIGEST.search(translations[name].read_text(encoding="utf-8"))
        if not recorded or recorded["digest"] != digest(source):
            faults.append(f'{name}: bring the translation up to date, then record source_digest: "{digest(source)}"')
    return faults
