"""The dashboard as a whole, in a real browser: accessible, safe, in two languages, and its pictures on the pages."""

import os
import re
import struct
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped] # it has no types
from playwright.sync_api import Browser, Page, expect

from dashboard import (
    NOW,
    ROOT,
    TIMES,
    Dashboard,
    Ledger,
    Open,
    Scheme,
    condition,
    event,
    fill_condition,
    meter,
    read_total,
)
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.pricing import WORDS

pytest_plugins = ["dashboard_fixtures"]

FOLDER = ROOT / "src" / "meterprint" / "local" / "dashboard"
VIEWS = ("events", "meters", "new-meter", "invoice", "test")
LANGUAGES = ("en", "sv")
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"

each_language = pytest.mark.parametrize("language", LANGUAGES)


# The page as a whole


@pytest.mark.parametrize("scheme", SCHEMES)
@each_language
def test_axe_finds_nothing_in_any_view(usage: Ledger, open_dashboard: Open, language: str, scheme: Scheme) -> None:
    usage.send(event("evt_1", {"tokens": None}))
    usage.send(usage.get("/events", page_size="1")["items"][0] | {"event_id": "req_0001"})
    dashboard = open_dashboard(usage.url, language=language, scheme=scheme, refusals=True)
    usage.send(event("req_0001"))
    for view in VIEWS:
        show(dashboard, view)
        results = Axe().run(dashboard.page)
        assert results.violations_count == 0, f"{view}: {results.generate_report()}"


def show(dashboard: Dashboard, view: str) -> None:
    """Bring a view to where it shows the most."""
    page = dashboard.page
    dashboard.go(view)
    if view == "events":
        dashboard.rows("refused").first.click()
        dashboard.rows("stored").first.click()
        dashboard.rows("duplicate").first.click()
    elif view == "meters":
        page.locator("#chart-split").select_option("customer")
        expect(page.locator("#chart-totals tbody tr").first).to_be_visible()
        page.locator("#chart-data summary").click()
    elif view == "new-meter":
        page.locator("#builder-event").fill("api.request")
        page.locator("#add-filter").click()
        fill_condition(page, "/filter/clauses/0", "status_code", "contains", "2")
        page.locator(".group-foot button").nth(1).click()
        fill_condition(page, "/filter/clauses/1/clauses/0", "endpoint", "contains", "/")
        page.locator("[data-pointer='/filter/clauses/0/clauses/0/type']").select_option("number")
        expect(page.locator(".condition .error:visible")).to_have_count(1)
    elif view == "invoice":
        expect(read_total(page)).to_contain_text("USD")
        page.locator("#prices select").nth(0).select_option("volume")
        page.locator("#prices select").nth(1).select_option("package")


def test_axe_finds_nothing_in_an_empty_ledger_and_in_the_dialog(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    for view in VIEWS:
        dashboard.go(view)
        results = Axe().run(dashboard.page)
        assert results.violations_count == 0, f"{view}: {results.generate_report()}"
    dashboard.page.locator("#reset-open").click()
    assert Axe().run(dashboard.page).violations_count == 0


@each_language
def test_an_empty_ledger_says_what_to_do_next(ledger: Ledger, open_dashboard: Open, language: str) -> None:
    dashboard = open_dashboard(ledger.url, language=language)
    for view, place in (("events", "#feed-empty"), ("meters", "#meters-empty"), ("invoice", "#invoice-empty")):
        dashboard.go(view)
        expect(dashboard.page.locator(place)).to_contain_text("meterprint demo")


def test_every_file_is_served_under_a_policy_that_the_page_keeps(usage: Ledger, open_dashboard: Open) -> None:
    policy = usage.http.get("/dashboard").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in FOLDER.iterdir():
        assert usage.http.get(f"/dashboard/{path.name}").headers["Content-Security-Policy"] == policy
    dashboard = open_dashboard(usage.url)
    dashboard.page.evaluate("""() => {
      window.violations = [];
      addEventListener("securitypolicyviolation", ({ violatedDirective }) => violations.push(violatedDirective));
    }""")
    for view in VIEWS:
        dashboard.go(view)
    expect(dashboard.page.locator("#clock-now")).to_be_visible()
    assert dashboard.page.evaluate("violations") == []
    loaded = {url.rpartition("/")[2] for url in dashboard.asked if "/dashboard/" in url}
    assert {path.name for path in FOLDER.iterdir()} - loaded == {"index.html", "vendor-uplot-LICENSE.txt"}


@each_language
def test_a_phone_shows_every_view_without_scrolling_sideways(
    usage: Ledger, open_dashboard: Open, language: str
) -> None:
    usage.send(event("x" * 300, {"k" * 100: "v" * 500}, customer_id="cus_" + "y" * 200))
    usage.send(event("evt_1", {"k" * 90: None}))
    usage.post("/meters", meter("M" * 200, filter={"conjunction": "or", "clauses": [condition("k" * 99, "v" * 400)]}))
    dashboard = open_dashboard(usage.url, language=language, width=390, refusals=True)
    usage.send(event("x" * 300))
    for view in VIEWS:
        show(dashboard, view)
        width = dashboard.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, view
    dashboard.go(f"meters/{usage.meter_id('M' * 200)}")
    expect(dashboard.page.locator("#meter-name")).to_have_text("M" * 200)
    assert dashboard.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_hostile_strings_stay_text(ledger: Ledger, open_dashboard: Open) -> None:
    ledger.post(
        "/meters",
        {
            **meter(HOSTILE, "sum", HOSTILE, measurement_unit=HOSTILE, description=HOSTILE, event_name=HOSTILE),
            "filter": {"conjunction": "and", "clauses": [condition(HOSTILE, 1)]},
        },
    )
    dashboard = open_dashboard(ledger.url)
    ledger.send(event(HOSTILE, {HOSTILE: 1, "other": HOSTILE}, customer_id=HOSTILE, name=HOSTILE))
    ledger.send(event(HOSTILE, customer_id=HOSTILE, name=HOSTILE))
    ledger.send(event("evt_1", {HOSTILE: None}))
    for kind in ("stored", "duplicate", "refused"):
        dashboard.rows(kind).first.click()
        expect(dashboard.page.locator(f'[data-kind="{kind}"] .detail')).to_contain_text("<img src=x")
    for view, place in (("meters", "#meter"), ("new-meter", "#view-new-meter"), ("invoice", "#invoice-form")):
        dashboard.go(view if view != "new-meter" else f"new-meter/{HOSTILE.replace('/', '')}")
        expect(dashboard.page.locator(place)).to_contain_text("<img src=x")
        assert dashboard.page.locator("img").count() == 1, "the page's own icon"
    dashboard.go("meters")
    dashboard.page.get_by_label("Split").select_option("customer")
    expect(dashboard.page.locator("#chart-totals")).to_contain_text(HOSTILE)
    assert "Meterprint" in dashboard.page.title()


def test_language_and_theme_are_chosen_and_remembered(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url)
    page = dashboard.page
    page.get_by_label("Language").select_option("sv")
    expect(page.get_by_role("heading", name="Händelser")).to_be_visible()
    expect(dashboard.rows("stored").first).to_contain_text("lagrad")
    page.get_by_label("Tema").select_option("dark")
    page.reload()
    expect(page.get_by_role("heading", name="Händelser")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "sv"
    expect(page.locator("body")).to_have_css("background-color", "rgb(18, 23, 24)")


# Texts and files


@pytest.fixture(scope="module")
def texts(browser: Browser) -> dict[str, dict[str, str]]:
    """Every text by its path in the table, with functions as their source, in each language."""
    with Server(create_app(MemoryStore())) as server:
        page = browser.new_page()
        page.goto(f"{server.url}/dashboard")
        found: dict[str, dict[str, str]] = page.evaluate("""async () => {
          const { TEXTS } = await import("/dashboard/texts.js");
          const flat = (value, path) => typeof value === "object"
            ? Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path}.${key}` : key))
            : [[path, typeof value === "function" ? `function of ${value.length}` : value]];
          const tables = Object.entries(TEXTS).map(([name, all]) => [name, Object.fromEntries(flat(all, ""))]);
          return Object.fromEntries(tables);
        }""")
        page.close()
    return found


def test_both_languages_have_the_same_texts(texts: dict[str, dict[str, str]]) -> None:
    english, swedish = texts["en"], texts["sv"]
    assert english.keys() == swedish.keys()
    functions = {path: text for path, text in english.items() if text.startswith("function of")}
    assert functions == {path: text for path, text in swedish.items() if text.startswith("function of")}
    assert all(text.strip() for table in texts.values() for text in table.values())


def test_every_text_is_used_and_every_text_that_is_used_exists(texts: dict[str, dict[str, str]]) -> None:
    names = {path.partition(".")[0] for path in texts["en"]}
    page = (FOLDER / "index.html").read_text()
    used = set(re.findall(r'data-(?:text|label|title|placeholder)="(\w+)', page))
    for path in FOLDER.glob("*.js"):
        if not path.name.startswith(("vendor", "texts")):
            used |= set(re.findall(r"(?<![\w.])t\.(\w+)", path.read_text()))
    reached_by_name = {"and", "or", "andConditions", "orConditions", "andGroups", "orGroups"}
    assert used - names == set()
    assert names - used - reached_by_name == set()


def test_the_words_of_an_invoice_are_those_of_the_prices_and_of_the_site(texts: dict[str, dict[str, str]]) -> None:
    translations = tomllib.loads((ROOT / "docs" / "tables.sv.toml").read_text())
    for language in LANGUAGES:
        words = {
            path.removeprefix("priceWords."): text
            for path, text in texts[language].items()
            if path.startswith("priceWords.")
        }
        assert words == {word: word if language == "en" else translations[word] for word in WORDS}


def test_the_chart_library_is_what_its_name_says_with_its_licence() -> None:
    (script,) = FOLDER.glob("vendor-uplot-*.js")
    version = re.fullmatch(r"vendor-uplot-([\d.]+)\.js", script.name)
    assert version
    assert f"uPlot (v{version[1]})" in script.read_text()[:100]
    assert "MIT License" in (FOLDER / "vendor-uplot-LICENSE.txt").read_text()


def test_no_script_makes_html_of_a_string() -> None:
    for path in FOLDER.glob("*.js"):
        if not path.name.startswith("vendor"):
            assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text())


# The pictures on the pages

UPDATE = "UPDATE_SCREENSHOTS"
PICTURES = ("events", "meters", "new-meter", "invoice", "test")
SIZE = (1120, 700)
MOST_BYTES = 200_000


@pytest.mark.parametrize("scheme", SCHEMES)
@each_language
def test_the_pictures_on_the_pages_show_each_view(
    usage: Ledger, open_dashboard: Open, language: str, scheme: Scheme, tmp_path: Path
) -> None:
    width, height = SIZE
    dashboard = open_dashboard(usage.url, language=language, scheme=scheme, width=width, height=height)
    assets = ROOT / "docs" / language / "assets"
    folder = assets if os.environ.get(UPDATE) else tmp_path
    for view in PICTURES:
        pose(usage, dashboard, view)
        path = folder / f"dashboard-{view}-{scheme}.png"
        dashboard.page.screenshot(path=path)
        for picture in (path, assets / path.name):
            data = picture.read_bytes()
            assert struct.unpack(">II", data[16:24]) == SIZE
            assert len(data) < MOST_BYTES


def pose(ledger: Ledger, dashboard: Dashboard, view: str) -> None:
    """Bring a view to what its picture shows."""
    page = dashboard.page
    dashboard.go(view)
    if view == "events":
        newest = ledger.get("/events", page_size="3")["items"]
        fields = ("event_id", "customer_id", "event_name", "timestamp", "metadata")
        ledger.send(event("req_0400", {"tokens": None}))
        expect(dashboard.rows("refused")).to_have_count(1)
        ledger.send(*({key: each[key] for key in fields} for each in newest))
        expect(dashboard.rows("duplicate")).to_have_count(1)
        again = {"status_code": 200, "endpoint": "/v1/search", "method": "GET", "response_bytes": 2048}
        ledger.send(event("req_0401", again, customer_id="cus_bo", timestamp=NOW - timedelta(seconds=4)))
        expect(dashboard.page.locator("#count-stored")).to_have_text("1")
        dashboard.rows("stored").first.click()
    elif view == "meters":
        page.locator("#chart-split").select_option("customer")
        expect(page.locator("#chart-totals tbody tr")).to_have_count(3)
        expect(page.locator("#meter-list .amount", has_text="\u2026")).to_have_count(0)
    elif view == "new-meter":
        pose_builder(page)
    elif view == "invoice":
        pose_invoice(page)
    else:
        expect(page.locator("#clock-now")).to_contain_text("2026")
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)


def pose_builder(page: Page) -> None:
    page.locator("#builder-event").fill("api.request")
    page.locator("#builder-type").select_option("sum")
    page.locator("#builder-key").fill("response_bytes")
    page.locator("#add-filter").click()
    fill_condition(page, "/filter/clauses/0", "status_code", "less_than", "300")
    page.locator(".group-foot button").first.click()
    fill_condition(page, "/filter/clauses/1", "endpoint", "equals", "/v1/search")
    page.locator("#builder-name").fill("Search bytes")
    page.locator("#builder-unit").fill("byte")
    expect(page.locator("#preview-quantity")).to_contain_text("byte")
    expect(page.locator("#preview-customers tbody tr")).to_have_count(3)


def pose_invoice(page: Page) -> None:
    expect(read_total(page)).to_contain_text("USD")
    row = page.get_by_role("group", name="API requests")
    row.locator("[data-pointer$='/mode']").select_option("graduated")
    for index, price in enumerate(("5", "2")):
        row.locator(".tiers > li").nth(index).locator("[data-pointer$='/price_per_unit']").fill(price)
    row.locator("[data-pointer$='/tiers/0/up_to']").fill("100")
    expect(page.locator("#invoice-lines tbody tr").first).to_contain_text(f"100 {TIMES} 5 cent")
