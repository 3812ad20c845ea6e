"""The pages: prose and includes only, the same in both languages; and the checks themselves can fail."""

from pathlib import Path

import pytest

import build_site
from meterprint.blueprints import BLUEPRINTS
from meterprint.snippets import LANGUAGES
from pages import (
    INCLUDE,
    broken_includes,
    digest,
    headings_without_anchor,
    section_faults,
    shape,
    stale,
    typed_code,
    unused_snippets,
)

ROOT = build_site.ROOT
SNIPPETS = ROOT / "snippets"
BASES = (SNIPPETS, build_site.INCLUDES)
PAGES = {
    language: {path.name: path for path in sorted((ROOT / "docs" / language).glob("*.md"))}
    for language in build_site.LANGUAGES
}
ALL = [path for pages in PAGES.values() for path in pages.values()]
NAMES = sorted({path.name for path in ALL})
PROGRAMS = [
    path.relative_to(SNIPPETS).as_posix()
    for suffix in (*LANGUAGES, ".txt", ".json")
    for path in sorted(SNIPPETS.rglob(f"*{suffix}"))
    if "node_modules" not in path.parts and len(path.relative_to(SNIPPETS).parts) > 1
    if not path.name.endswith("_test.go")
]
# Ledgers are shown as tables of readings, and what a program prints stands in its own #> comments.
SHOWN_OTHERWISE = {"api_gateway/fastapi/ledger.json"}
SHOWN_OTHERWISE |= {path for path in PROGRAMS if path.startswith("llm/") and path.endswith((".txt", ".json"))}
SHOWN_OTHERWISE -= {"llm/openai_chat/expected.txt", "llm/openai_chat/ledger.json"}
SECTIONS = [
    "what-you-track",
    "event-structure",
    "meters",
    "send-events",
    "see-it-metered",
    "price-it",
    "best-practices",
    "troubleshooting",
    "make-it-yours",
]

each_page = pytest.mark.parametrize("path", ALL, ids=lambda path: "/".join(path.parts[-2:]))


@pytest.fixture(scope="module", autouse=True)
def includes() -> None:
    build_site.write_includes()


@each_page
def test_a_page_holds_no_code_of_its_own(path: Path) -> None:
    assert typed_code(path.read_text()) == []


@each_page
def test_every_include_of_a_page_resolves(path: Path) -> None:
    assert broken_includes(path.read_text(), BASES) == []


@each_page
def test_every_heading_has_an_anchor_of_its_own(path: Path) -> None:
    assert headings_without_anchor(path.read_text()) == []


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_share_headings_includes_and_links(name: str) -> None:
    english, swedish = (PAGES[language][name].read_text() for language in ("en", "sv"))
    assert shape(english, "en") == shape(swedish, "sv")


def test_no_translation_is_missing_or_stale() -> None:
    assert stale(PAGES["en"], PAGES["sv"]) == []


@pytest.mark.parametrize("language", PAGES)
def test_every_snippet_and_output_is_on_a_page(language: str) -> None:
    pages = [path.read_text() for path in PAGES[language].values()]
    assert set(unused_snippets(PROGRAMS, pages)) == SHOWN_OTHERWISE


@pytest.mark.parametrize("path", [path for path in PROGRAMS if not path.endswith((".txt", ".json"))])
def test_every_section_of_a_snippet_is_closed_unique_and_used(path: str) -> None:
    used = {
        match["section"]
        for page in ALL
        for match in INCLUDE.finditer(page.read_text())
        if match["path"] == path and match["section"]
    }
    assert section_faults((SNIPPETS / path).read_text(), used) == []


@pytest.mark.parametrize("language", PAGES)
@pytest.mark.parametrize("slug", BLUEPRINTS)
def test_a_blueprint_page_has_its_nine_sections_in_order(slug: str, language: str) -> None:
    lines = shape(PAGES[language][f"{slug.replace('_', '-')}.md"].read_text(), language)
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == SECTIONS


# The checks check themselves.


def test_code_that_is_typed_in_a_page_is_found() -> None:
    page = 'Text\n\n``` python\n--8<-- "a.py"\n```\n\n    ``` bash\n    make up\n    ```\n'
    assert typed_code(page) == ["    make up\n"]


def test_a_broken_include_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# --8<-- [start:one]\n# --8<-- [end:one]\n")
    page = '--8<-- "a.py"\n--8<-- "a.py:one"\n--8<-- "a.py:two"\n--8<-- "b.py"\n'
    assert broken_includes(page, [tmp_path]) == ["no section two in a.py", "no file b.py"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# --8<-- [start:x]\n", "x is not opened and then closed"),
        ("# --8<-- [end:x]\n# --8<-- [start:x]\n", "x is not opened and then closed"),
        ("# --8<-- [start:x]\n# --8<-- [start:x]\n# --8<-- [end:x]\n", "start:x stands 2 times"),
        ("# --8<-- [start:y]\n# --8<-- [end:y]\n", "y is on no page"),
    ],
)
def test_a_section_that_is_open_double_or_unused_is_found(text: str, fault: str) -> None:
    assert fault in section_faults(text, {"x"})


def test_a_snippet_on_no_page_is_found() -> None:
    assert unused_snippets(["a.py", "b.py"], ['--8<-- "a.py"\n']) == ["b.py"]


def test_pages_that_part_are_found() -> None:
    english = '# Title\n\n## One { #one }\n\n--8<-- "en/t.md"\n'
    assert shape(english, "en") == shape('# Titel\n\n## Ett { #one }\n\n--8<-- "sv/t.md"\n', "sv")
    assert shape(english, "en") != shape('# Titel\n\n## Ett { #ett }\n\n--8<-- "sv/t.md"\n', "sv")
    assert shape(english, "en") != shape("# Titel\n\n## Ett { #one }\n", "sv")


def test_a_stale_translation_is_found(tmp_path: Path) -> None:
    source, translation = tmp_path / "en.md", tmp_path / "sv.md"
    source.write_text("Text\n")
    translation.write_text(f'---\nsource_digest: "{digest(source)}"\n---\n')
    assert stale({"a": source}, {"a": translation}) == []
    source.write_text("Other text\n")
    assert stale({"a": source}, {"a": translation})[0].startswith("a: bring the translation up to date")
    assert stale({"a": source}, {}) == ["a is not translated"]


def test_a_heading_without_an_anchor_is_found() -> None:
    assert headings_without_anchor("# Title\n\n## One\n\n## Two { #two }\n") == ["## One"]


def test_a_text_without_translation_stops_the_build(capsys: pytest.CaptureFixture[str]) -> None:
    texts = build_site.Texts("sv")
    texts("A text that no table has")
    with pytest.raises(SystemExit):
        texts.check()
    assert 'docs/tables.sv.toml lacks: "A text that no table has"' in capsys.readouterr().err
