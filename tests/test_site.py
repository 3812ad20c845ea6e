"""The built site, as files and in a real browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

import build_site
from browser import TIMEOUT, chromium
from conftest import require_tool
from meterprint import MeteringClient
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.cli import LOCAL_KEY, site_app
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.snippets import (
    LANGUAGES,
    Program,
    command,
    find_recipe,
    missing_tools,
    program_environment,
    tool_environment,
)

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site_url(folder: Path) -> Iterator[str]:
    with Server(site_app(folder)) as server:
        yield server.url


@pytest.fixture(scope="module")
def site(folder: Path, site_url: str) -> Path:
    done = subprocess.run(
        [sys.executable, build_site.__file__],
        check=False,
        cwd=build_site.ROOT,
        env={**os.environ, "SITE_URL": f"{site_url}/", "SITE_DIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with chromium() as browser:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], locale="en-GB")
        context.set_default_timeout(TIMEOUT)
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    yield page
    page.close()


class Loaded(HTMLParser):
    """What a page loads when it is opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(LOADS.get(tag, ""))
        if tag == "link" and values.get("rel") not in ("canonical", "alternate", "next", "prev"):
            address = values.get("href")
        if address:
            self.addresses.append(address)


def test_the_pages_load_nothing_from_other_hosts(site: Path, site_url: str) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loaded = Loaded(page.read_text()).addresses
        outside = [url for url in loaded if re.match(r"(https?:)?//", url) and not url.startswith(f"{site_url}/")]
        assert outside == [], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"@import|url\([\"']?(?:https?:)?//[^)]*", sheet.read_text()), sheet


def test_the_sitemaps_name_each_page_in_both_languages(site: Path, site_url: str) -> None:
    for folder in ("", "sv/"):
        text = (site / folder / "sitemap.xml").read_text()
        for place in ("", "api-gateway/", "reference/"):
            assert f"<loc>{site_url}/{folder}{place}</loc>" in text
            assert f'hreflang="en" href="{site_url}/{place}"' in text
            assert f'hreflang="sv" href="{site_url}/sv/{place}"' in text
        page = (site / folder / "api-gateway" / "index.html").read_text()
        assert not re.search(r"<link [^>]*hreflang", page)


def test_switching_the_language_stays_on_the_page(site: Path, site_url: str, page: Page) -> None:
    page.goto(f"{site_url}/api-gateway/", wait_until="networkidle")
    page.locator(".md-header .md-select button").hover()
    page.get_by_role("link", name="Svenska").click()
    page.wait_for_url(f"{site_url}/sv/api-gateway/")
    expect(page.get_by_role("heading", name="Händelsestruktur")).to_be_visible()
    page.locator(".md-header .md-select button").hover()
    page.get_by_role("link", name="English").click()
    page.wait_for_url(f"{site_url}/api-gateway/")


@pytest.mark.parametrize("text", ["[broken](nowhere.md)", "[broken](#nowhere)", "::: meterprint.Nothing"])
def test_a_broken_link_anchor_or_name_stops_the_build(text: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    config = build_site.ROOT / "build" / "broken.yml"
    lines = [f"INHERIT: {build_site.ROOT}/mkdocs.yml", f"docs_dir: {tmp_path}/docs", f"site_dir: {tmp_path}/site"]
    config.write_text("\n".join([*lines, "nav: [index.md]", "extra_css: []\n"]))
    code = f"import build_site; build_site.build_pages({str(config)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=build_site.ROOT,
        env={"PYTHONPATH": str(build_site.ROOT / "scripts"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0


@pytest.mark.parametrize("language", ["", "sv/"])
def test_no_page_asks_another_host_or_reports_an_error(site: Path, site_url: str, page: Page, language: str) -> None:
    asked: set[str] = set()
    errors: list[str] = []
    page.on("request", lambda request: asked.add(request.url))
    page.on(
        "console",
        lambda message: errors.append(f"{message.text} {message.location}") if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name in ("", "api-gateway/", "api/", "dashboard/", "verify/", "local-api/", "testing/", "reference/"):
        page.goto(f"{site_url}/{language}{name}", wait_until="networkidle")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert {url for url in asked if not url.startswith((f"{site_url}/", "data:", "blob:"))} == set()
    assert errors == []


@pytest.mark.parametrize("language", ["", "sv/"])
def test_every_block_copied_from_the_page_runs_and_is_metered(
    site: Path, site_url: str, page: Page, language: str, tmp_path: Path
) -> None:
    recipe = find_recipe(build_site.ROOT, "api_gateway/first_event")
    for tool in missing_tools(recipe.programs):
        require_tool(tool)
    page.goto(f"{site_url}/{language}api-gateway/", wait_until="networkidle")
    tabs = page.locator(".tabbed-set").first
    with Server(create_app(MemoryStore())) as api, MeteringClient(api.url, LOCAL_KEY) as client:
        (requests, *_) = client.ensure_meters(BLUEPRINT.meters)
        for number, program in enumerate(recipe.programs, start=1):
            tabs.locator("label").nth(number - 1).click()
            block = tabs.locator(".tabbed-block").nth(number - 1)
            block.locator("button.md-clipboard, button[data-clipboard-target], .md-code__button").first.click()
            copied = page.evaluate("navigator.clipboard.readText()")
            run_copied(copied, program.path.name, program_environment(api.url, LOCAL_KEY), tmp_path)
            assert client.usage(requests.id or "") == number


def run_copied(text: str, name: str, environment: dict[str, str], folder: Path) -> None:
    path = folder / name
    path.write_text(text)
    language = LANGUAGES[path.suffix]
    done = subprocess.run(
        command(Program(path, language.key, language)),
        check=False,
        cwd=folder,
        env={**tool_environment(build_site.ROOT / "snippets" / name), "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "1 event ingested\n"), done.stderr
