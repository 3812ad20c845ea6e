"""Each view of the dashboard, in a real browser, against the local metering API."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from dashboard import (
    KEY,
    NOW,
    ROOT,
    TIMES,
    Ledger,
    Open,
    condition,
    event,
    fill_condition,
    meter,
    read_total,
    seen_at,
    text_of,
)
from meterprint import Price, Tier
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.pricing import money
from meterprint.snippets import find_recipe, program_environment, run

pytest_plugins = ["dashboard_fixtures"]

MOST_ROWS = 200
SERVED = {"status_code": 200, "endpoint": "/v1/search"}


# Events


def test_an_event_of_a_snippet_appears_without_a_reload(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    expect(dashboard.page.locator("#feed-empty")).to_contain_text("meterprint run api_gateway/first_event")
    dashboard.page.evaluate("window.sameDocument = true")
    recipe = find_recipe(ROOT, "api_gateway/first_event")
    outcome = run(recipe.programs[0], recipe, ledger.client, program_environment(ledger.url, KEY))
    assert outcome.status == 0, outcome.errors
    row = dashboard.rows("stored").first
    expect(row).to_contain_text("cus_ada")
    expect(row).to_contain_text("api.request")
    expect(row).to_contain_text("/v1/orders/{order_id}")
    expect(dashboard.page.locator("#count-stored")).to_have_text("1")
    dashboard.go("meters")
    expect(dashboard.page.locator("#meter-list li", has_text="Response bytes")).to_contain_text("2,048 byte")
    assert dashboard.page.evaluate("window.sameDocument")


def test_a_refused_request_appears_with_every_reason(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    ledger.send(event("evt_1", {"tokens": None}), event("evt_2", customer_id=""))
    row = dashboard.rows("refused").first
    expect(row).to_contain_text("refused 4")
    expect(row).to_contain_text("POST /events/ingest")
    expect(row).to_contain_text("2 events")
    row.click()
    (rejection,) = ledger.get("/local/rejections")["items"]
    assert len(rejection["details"]) == 2
    for detail in rejection["details"]:
        expect(dashboard.page.locator(".reasons dt", has_text=detail["pointer"])).to_be_visible()
        expect(dashboard.page.locator(".reasons dd", has_text=detail["reason"])).to_be_visible()
    expect(dashboard.page.locator("#count-refused")).to_have_text("1")


def test_a_duplicate_is_shown_as_one(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    ledger.send(event("evt_1"), event("evt_2"))
    expect(dashboard.rows("stored")).to_have_count(2)
    ledger.send(event("evt_1"), event("evt_3"))
    expect(dashboard.rows("duplicate")).to_have_count(1)
    expect(dashboard.rows("duplicate").first).to_contain_text("evt_1")
    expect(dashboard.rows("stored")).to_have_count(3)
    for kind, count in (("stored", "3"), ("duplicate", "1"), ("refused", "0")):
        expect(dashboard.page.locator(f"#count-{kind}")).to_have_text(count)


def test_an_event_that_no_meter_will_bill_says_why(ledger: Ledger, open_dashboard: Open) -> None:
    ledger.client.ensure_meters(BLUEPRINT.meters)
    dashboard = open_dashboard(ledger.url)
    (warning,) = ledger.send(event("evt_1", {**SERVED, "response_bytes": 1}), event("evt_2", {"statusCode": 200}))[
        "warnings"
    ]
    assert warning["event_id"] == "evt_2"
    row = dashboard.page.locator(f"[data-warning={warning['code']}]")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("not billed")
    row.click()
    expect(row.locator(".warning")).to_have_text(f"{warning['code']} {warning['message']}")


def test_what_the_ledger_held_before_is_shown_too(usage: Ledger, open_dashboard: Open) -> None:
    usage.send(event("evt_1", {"tokens": None}))
    dashboard = open_dashboard(usage.url)
    expect(dashboard.rows("stored")).to_have_count(50)
    expect(dashboard.rows("refused")).to_have_count(1)
    newest = usage.get("/events", page_size="1")["items"][0]
    dashboard.rows("stored").first.click()
    expect(dashboard.page.locator(".detail pre")).to_contain_text(newest["event_id"])


def test_the_list_shows_only_what_is_chosen_and_found(usage: Ledger, open_dashboard: Open) -> None:
    usage.send(event("evt_1", {"tokens": None}))
    dashboard = open_dashboard(usage.url)
    page = dashboard.page
    page.get_by_role("button", name="Refused 0").click()
    expect(dashboard.rows("stored").first).to_be_hidden()
    expect(dashboard.rows("refused").first).to_be_visible()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Find in the list").fill("cus_bo")
    visible = page.locator("#feed > li:visible")
    expect(visible.first).to_contain_text("cus_bo")
    assert 0 < visible.count() < 50
    page.get_by_label("Find in the list").fill("nothing has this")
    expect(page.locator("#feed-empty")).to_be_visible()


def test_a_pause_holds_what_arrives_until_it_ends(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    dashboard.page.get_by_role("button", name="Pause").click()
    ledger.send(event("evt_1"))
    expect(dashboard.page.locator("#feed-pause")).to_have_text("Go on (1 new)")
    expect(dashboard.rows("stored")).to_have_count(0)
    dashboard.page.locator("#feed-pause").click()
    expect(dashboard.rows("stored")).to_have_count(1)


def test_the_page_finds_the_api_again_after_a_restart(open_dashboard: Open) -> None:
    store = MemoryStore()
    with Server(create_app(store)) as server:
        port = server.port
        dashboard = open_dashboard(server.url, refusals=True)
    status = dashboard.page.locator("#status")
    expect(status).to_contain_text("meterprint up")
    with Server(create_app(store), port) as server, seen_at(server.url) as ledger:
        expect(status).to_have_text("Connected", timeout=15_000)
        ledger.send(event("evt_1"))
        expect(dashboard.rows("stored")).to_have_count(1)


def test_another_key_shows_another_ledger(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url)
    expect(dashboard.rows("stored")).to_have_count(50)
    dashboard.page.get_by_label("API key").fill("another")
    expect(dashboard.rows("stored")).to_have_count(0)
    with seen_at(usage.url, "another") as other:
        other.send(event("evt_1", customer_id="cus_zoe"))
    expect(dashboard.rows("stored")).to_have_count(1)
    expect(dashboard.rows("stored").first).to_contain_text("cus_zoe")
    dashboard.page.reload()
    expect(dashboard.rows("stored").first).to_contain_text("cus_zoe")  # the browser remembers the key
    dashboard.page.get_by_label("API key").fill("")
    expect(dashboard.page.locator("#status")).to_contain_text("Type the API key")


def test_a_burst_of_5000_events_leaves_the_page_responsive(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url, "meters")
    dashboard.go("events")
    page = dashboard.page
    page.evaluate("""() => {
      window.longest = 0;
      let last = performance.now();
      const look = (now) => { longest = Math.max(longest, now - last); last = now; requestAnimationFrame(look); };
      requestAnimationFrame(look);
    }""")
    burst = threading.Thread(target=send_burst, args=(usage, 5_000, 10))
    burst.start()
    while burst.is_alive():
        page.locator("[data-show-kind=stored]").click(timeout=1_000)
        page.locator("[data-show-kind=all]").click(timeout=1_000)
    burst.join()
    expect(page.locator("#count-stored")).to_have_text("5,000", timeout=10_000)
    assert page.locator("#feed > li").count() == MOST_ROWS
    assert page.evaluate("longest") < 1_000  # milliseconds between two frames; frozen, it would be the whole burst
    dashboard.go("meters")
    reading = f"{usage.client.usage(usage.meter_id('API requests')):,f}"
    expect(page.locator("#meter-reading")).to_contain_text(reading)


def send_burst(ledger: Ledger, count: int, batch: int) -> None:
    with seen_at(ledger.url) as own:
        for start in range(0, count, batch):
            own.send(*(event(f"burst_{n}", SERVED) for n in range(start, start + batch)))


def test_a_batch_shows_its_last_events_and_counts_the_others(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    send_burst(ledger, 1_000, 1_000)
    expect(dashboard.page.locator("#count-stored")).to_have_text("1,000")
    expect(dashboard.page.locator("#feed > li").last).to_contain_text("and 980 more events of this batch")


def test_a_message_that_comes_in_many_pieces_is_read_whole(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url)
    long = {f"key_{number}": "å" * 500 for number in range(50)}
    ledger.send(*(event(f"evt_{number}", long) for number in range(20)))  # 1 MB in UTF-8
    expect(dashboard.rows("stored")).to_have_count(20)
    assert set(dashboard.rows("stored").first.locator(".pairs").inner_text()) >= {"å", "k"}
    assert "\ufffd" not in dashboard.page.locator("#feed").inner_text()


# Copy as curl


@pytest.fixture
def shell(ledger: Ledger, tmp_path: Path) -> Callable[[str], Any]:
    def run_in_bash(command: str) -> Any:
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **program_environment(ledger.url, KEY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return run_in_bash


STRANGE = {
    "quotes": """it's "quoted" `and` $(touch x) ${HOME} !! \\ %s""",
    "lines": "one\ntwo\ttab\u0007",
    "letters": "åäö 漢字 🙂",
    "number": 12345678901234567,
    "decimal": 0.1,
    "true": True,
}


def test_an_event_copied_as_curl_runs_and_is_a_duplicate(
    ledger: Ledger, open_dashboard: Open, shell: Callable[[str], Any], tmp_path: Path
) -> None:
    dashboard = open_dashboard(ledger.url)
    ledger.send(event("it's one", STRANGE, customer_id="cus_'ada'"))
    dashboard.rows("stored").first.click()
    command = dashboard.copied(dashboard.page.get_by_role("button", name="Copy as curl"))
    assert "$METERING_API_KEY" in command
    assert "${METERING_API_URL%/}/events/ingest" in command
    assert f"Bearer {KEY}" not in command
    answer = shell(command)
    assert (answer["ingested_count"], answer["duplicate_count"]) == (0, 1)
    assert list(tmp_path.iterdir()) == []
    # The same command, sent to an empty ledger, stores the very same event.
    stored = ledger.get("/events")["items"]
    ledger.post("/local/reset", {})
    assert shell(command)["ingested_count"] == 1
    assert ledger.get("/events")["items"] == stored
    assert stored[0]["metadata"] == STRANGE


def test_an_old_event_is_copied_without_its_time_which_the_api_would_refuse(
    usage: Ledger, open_dashboard: Open, shell: Callable[[str], Any]
) -> None:
    usage.post("/local/clock", {"advance": 7200})
    dashboard = open_dashboard(usage.url)
    dashboard.rows("stored").first.click()
    command = dashboard.copied(dashboard.page.get_by_role("button", name="Copy as curl"))
    expect(dashboard.page.locator("#toast")).to_contain_text("without the timestamp")
    assert "timestamp" not in command
    assert shell(command)["duplicate_count"] == 1


def test_a_meter_copied_as_curl_makes_the_same_meter(
    usage: Ledger, open_dashboard: Open, shell: Callable[[str], Any]
) -> None:
    dashboard = open_dashboard(usage.url, f"meters/{usage.meter_id('Premium requests')}")
    expect(dashboard.page.locator("#meter-name")).to_have_text("Premium requests")
    made = shell(dashboard.copied(dashboard.page.get_by_role("button", name="Copy as curl")))
    wanted = next(each for each in BLUEPRINT.meters if each.name == "Premium requests").to_wire()
    assert {key: made[key] for key in wanted} == wanted


# Meters


def test_each_meter_shows_its_reading_unit_and_formula(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url, "meters")
    for defined in BLUEPRINT.meters:
        item = dashboard.page.locator("#meter-list li", has_text=defined.name)
        reading = usage.client.usage(usage.meter_id(defined.name))
        expect(item).to_contain_text(f"{reading:,f} {defined.measurement_unit}")
    clauses = [
        {"conjunction": "or", "clauses": [condition("endpoint", "/v1/search"), condition("cached", value=True)]},
        {"conjunction": "and", "clauses": [{"key": "status_code", "operator": "less_than", "value": 500}]},
    ]
    usage.post("/meters", meter("Nested", "max", "duration_ms", filter={"conjunction": "and", "clauses": clauses}))
    dashboard.page.locator("#meter-list a", has_text="Nested").click()
    formula = 'max(duration_ms) of api.request where (endpoint = "/v1/search" or cached = true) and status_code < 500'
    expect(dashboard.page.locator("#meter-formula")).to_have_text(formula)


@pytest.mark.parametrize(("split", "key"), [("", ""), ("customer", ""), ("key", "endpoint")])
def test_the_chart_and_its_tables_show_what_the_api_says(
    usage: Ledger, open_dashboard: Open, split: str, key: str
) -> None:
    meter_id = usage.meter_id("Response bytes")
    dashboard = open_dashboard(usage.url, f"meters/{meter_id}")
    page = dashboard.page
    page.get_by_text("Hour", exact=True).click()
    page.get_by_label("Split").select_option(split)
    if key:
        page.locator("#chart-key").fill(key)
        page.keyboard.press("Enter")
    options = {"customer": {"per_customer": "true"}, "key": {"group_by": key}}.get(split, {})
    wanted = usage.get(
        f"/local/meters/{meter_id}/usage",
        start=text_of(NOW - timedelta(hours=1)),
        window="hour",
        timezone="Europe/Stockholm",
        **options,
    )
    expect(page.locator("#chart-total")).to_have_text(f"{int(wanted['quantity']):,} byte in this range")
    page.get_by_text("The numbers as a table").click()
    rows = page.locator("#chart-table tbody tr")
    expect(rows).to_have_count(len(wanted["items"]))
    shown = {row.locator("td").last.inner_text() for row in rows.all()}
    assert shown == {f"{int(item['quantity']):,}" for item in wanted["items"]}
    totals = page.locator("#chart-totals tbody tr")
    groups = {item["customer_id" if split == "customer" else "group"] for item in wanted["items"]} if split else set()
    expect(totals).to_have_count(len(groups))
    assert {row.locator("td").first.inner_text() for row in totals.all()} == groups
    assert colours(page) > 2  # something is drawn: more than the page and the axes


def colours(page: Page) -> int:
    """How many colours the chart has."""
    count = page.evaluate("""() => {
      const canvas = document.querySelector("#chart canvas");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(new Uint32Array(data.buffer)).size;
    }""")
    return int(count)


def test_the_chart_says_what_is_under_the_pointer(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url, "meters")
    dashboard.page.get_by_label("Split").select_option("customer")
    expect(dashboard.page.locator("#chart-totals tbody tr")).to_have_count(3)
    dashboard.page.locator("#chart .u-over").hover()
    expect(dashboard.page.locator("#chart-readout")).to_contain_text(
        re.compile(r"24 Nov 2026, \d\d:\d\d: .*cus_ada \d")
    )


def test_a_meter_of_levels_is_drawn_as_a_line(usage: Ledger, open_dashboard: Open) -> None:
    usage.post("/meters", meter("Slowest", "max", "duration_ms"))
    dashboard = open_dashboard(usage.url, f"meters/{usage.meter_id('Slowest')}")
    dashboard.page.get_by_label("Split").select_option("customer")
    expect(dashboard.page.locator("#chart-totals tbody tr")).to_have_count(3)
    assert colours(dashboard.page) > 2


def test_a_meter_is_archived_and_taken_back_into_use(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url, "meters")
    page = dashboard.page
    page.get_by_role("button", name="Archive").click()
    expect(page.locator("#meter-tag")).to_be_visible()
    expect(page.locator("#meter-list .archived")).to_contain_text("API requests")
    assert [each["name"] for each in usage.get("/meters", archived="true")["items"]] == ["API requests"]
    page.get_by_role("button", name="Take back into use").click()
    expect(page.locator("#meter-tag")).to_be_hidden()
    assert usage.get("/meters", archived="true")["items"] == []


@pytest.mark.parametrize("language", ["en", "sv"])
def test_numbers_are_shown_exactly_however_long(ledger: Ledger, open_dashboard: Open, language: str) -> None:
    ledger.post("/meters", meter("Long", "sum", "n"))
    ledger.send(event("evt_1", {"n": 9007199254740993}), event("evt_2", {"n": 0.000001}))
    dashboard = open_dashboard(ledger.url, language=language)
    expect(dashboard.rows("stored").filter(has_text="9007199254740993")).to_have_count(1)
    dashboard.go("meters")
    digits = {"en": "9,007,199,254,740,993.000001", "sv": "9\u00a0007\u00a0199\u00a0254\u00a0740\u00a0993,000001"}
    expect(dashboard.page.locator("#meter-reading")).to_contain_text(digits[language])


# New meter


def test_the_builder_shows_and_creates_a_meter_whose_reading_is_right(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url, "new-meter")
    page = dashboard.page
    expect(page.locator("#event-names option")).to_have_count(1)
    page.get_by_label("Event name").fill("api.request")
    page.get_by_label("Aggregation").select_option("sum")
    page.locator("#builder-key").fill("response_bytes")
    build_filter(page)
    wanted = {
        **meter("Served bytes", "sum", "response_bytes", measurement_unit="byte", description=None),
        "filter": {
            "conjunction": "or",
            "clauses": [
                {
                    "conjunction": "and",
                    "clauses": [
                        {"key": "status_code", "operator": "less_than", "value": 300},
                        {"key": "method", "operator": "not_equals", "value": "POST"},
                    ],
                },
                {
                    "conjunction": "and",
                    "clauses": [{"key": "endpoint", "operator": "contains", "value": "/v1/search"}],
                },
            ],
        },
    }
    preview = usage.post("/local/meters/preview", wanted)
    assert 0 < preview["matching_count"] < preview["named_count"]
    expect(page.locator("#preview-quantity")).to_have_text(f"{int(preview['quantity']):,} units")
    expect(page.locator("#preview-count")).to_contain_text(
        f"{preview['matching_count']} of {preview['named_count']} stored events"
    )
    page.get_by_label("Name", exact=True).fill("Served bytes")
    page.get_by_label("Unit").fill("byte")
    assert json.loads(page.locator("#builder-json").inner_text()) == wanted
    page.get_by_role("button", name="Create meter").click()
    expect(page.locator("#meter-name")).to_have_text("Served bytes")
    expect(page.locator("#meter-reading")).to_have_text(f"{int(preview['quantity']):,} byte")
    made = next(each for each in usage.get("/meters")["items"] if each["name"] == "Served bytes")
    assert {key: made[key] for key in wanted} == wanted
    assert f"{usage.client.usage(made['id']):f}" == preview["quantity"]


def build_filter(page: Page) -> None:
    """(status_code < 300 and method is not POST) or (endpoint contains /v1/search), by its fields."""
    page.get_by_role("button", name="Add a filter").click()
    fill_condition(page, "/filter/clauses/0", "status_code", "less_than", "300")
    page.get_by_role("button", name="Add condition").click()
    fill_condition(page, "/filter/clauses/1", "method", "not_equals", "POST")
    page.get_by_role("button", name="Split into groups").click()
    fill_condition(page, "/filter/clauses/1/clauses/0", "endpoint", "contains", "/v1/search")


def test_a_condition_takes_the_type_that_the_key_has_in_events(usage: Ledger, open_dashboard: Open) -> None:
    page = open_dashboard(usage.url, "new-meter").page
    page.get_by_label("Event name").fill("api.request")
    page.get_by_role("button", name="Add a filter").click()
    for key, kind in (("status_code", "number"), ("endpoint", "text")):
        page.locator("[data-pointer='/filter/clauses/0/key']").fill(key)
        expect(page.locator("[data-pointer='/filter/clauses/0/type']")).to_have_value(kind)


def test_what_the_api_refuses_is_said_at_the_field(usage: Ledger, open_dashboard: Open) -> None:
    page = open_dashboard(usage.url, "new-meter", refusals=True).page
    page.get_by_label("Event name").fill("api.request")
    page.get_by_role("button", name="Create meter").click()
    name = page.get_by_label("Name", exact=True)
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(name).to_be_focused()
    described = page.locator(f"#{name.get_attribute('aria-describedby')}")
    expect(described).to_contain_text("non-empty string")
    page.get_by_role("button", name="Add a filter").click()
    fill_condition(page, "/filter/clauses/0", "status_code", "contains", "2")
    page.locator("[data-pointer='/filter/clauses/0/type']").select_option("number")
    expect(page.locator(".condition .error")).to_contain_text("is not a string, which contains needs")
    assert len(usage.get("/meters")["items"]) == len(BLUEPRINT.meters)


def test_the_filter_keeps_within_the_limits_of_the_contract(usage: Ledger, open_dashboard: Open) -> None:
    page = open_dashboard(usage.url, "new-meter").page
    page.get_by_role("button", name="Add a filter").click()
    for _ in range(9):
        page.get_by_role("button", name="Add condition").click()
    expect(page.locator(".condition")).to_have_count(10)
    expect(page.get_by_role("button", name="Add condition")).to_be_disabled()
    page.get_by_role("button", name="Remove the filter").click()
    page.get_by_role("button", name="Add a filter").click()
    for _ in range(3):
        page.get_by_role("button", name="Split into groups").first.click()
    expect(page.locator(".group .group .group .group .condition").first).to_be_visible()
    expect(
        page.locator(".group .group .group .group").first.get_by_role("button", name="Split into groups")
    ).to_be_hidden()
    expect(
        page.locator("#filter > .group > .group-foot").get_by_role("button", name="Split into groups")
    ).to_have_count(0)
    while (removes := page.get_by_role("button", name="Remove group")).count():
        removes.first.click()
    expect(page.locator(".condition")).to_have_count(1)


def test_a_meter_is_begun_from_an_event(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url)
    dashboard.rows("stored").first.click()
    dashboard.page.get_by_role("link", name="New meter from this event").click()
    expect(dashboard.page.get_by_label("Event name")).to_have_value("api.request")
    expect(dashboard.page.locator("#preview-count")).to_contain_text("400 of 400")


# Invoice


def only_price(page: Page, name: str) -> Locator:
    """The row of one meter's price, with the other meters left out."""
    expect(read_total(page)).to_contain_text("USD")
    for label in page.locator("#prices .used").all_inner_texts():
        if name not in label:
            page.get_by_role("checkbox", name=label.strip(), exact=True).uncheck()
    expect(page.locator("#invoice-lines tbody tr")).to_have_count(1)
    return page.get_by_role("group", name=name)


def drag(page: Page, slider: Locator, part: float) -> None:
    box = slider.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()


def customer_quantity(ledger: Ledger, name: str, customer: str) -> Decimal:
    return ledger.client.usage(ledger.meter_id(name), customer_id=customer)


@pytest.mark.parametrize("part", [0.2, 0.7, 0.95])
def test_the_total_follows_the_slider_and_is_what_the_price_says(
    usage: Ledger, open_dashboard: Open, part: float
) -> None:
    page = open_dashboard(usage.url, "invoice").page
    row = only_price(page, "API requests")
    row.get_by_label("Free units").fill("10")
    before = read_total(page).inner_text()
    drag(page, row.get_by_label("Slider"), part)
    price = row.locator("[data-pointer$='/price_per_unit']").input_value()
    line = Price("API requests", Decimal(price), Decimal(10)).charge(
        customer_quantity(usage, "API requests", "cus_ada")
    )
    expect(read_total(page)).to_have_text(money(line.total, "USD"))
    assert read_total(page).inner_text() != before
    explanation = line.explanation.replace(" x ", f" {TIMES} ").replace(" - ", " \u2212 ")
    expect(page.locator("#invoice-lines tbody")).to_contain_text(explanation)


@pytest.mark.parametrize("kind", ["graduated", "volume", "package"])
def test_each_kind_of_price_gives_the_total_that_it_must(usage: Ledger, open_dashboard: Open, kind: str) -> None:
    page = open_dashboard(usage.url, "invoice").page
    row = only_price(page, "API requests")
    row.get_by_label("Kind of price").select_option(kind)
    quantity = customer_quantity(usage, "API requests", "cus_ada")
    if kind == "package":
        row.get_by_label("Package size").fill("7")
        row.locator("[data-pointer$='/price_per_unit']").fill("12.5")
        price = Price("API requests", Decimal("12.5"), package_size=Decimal(7))
    else:
        fill_tiers(row)
        tiers = (Tier(Decimal(20), Decimal("5.5"), Decimal(100)), Tier(Decimal(50), Decimal(3)), Tier(None, Decimal(2)))
        price = Price("API requests", tiers=tiers, mode="graduated" if kind == "graduated" else "volume")
    expect(read_total(page)).to_have_text(money(price.charge(quantity).total, "USD"))


def fill_tiers(row: Locator) -> None:
    row.get_by_role("button", name="Add tier").click()
    for index, (end, price, fee) in enumerate([("20", "5.5", "100"), ("50", "3", "0"), (None, "2", "0")]):
        tier = row.locator(".tiers > li").nth(index)
        if end:
            tier.get_by_label("Up to").fill(end)
        tier.locator("[data-pointer$='/price_per_unit']").fill(price)
        tier.get_by_label("Flat fee").fill(fee)


def test_a_price_that_is_none_is_said_at_its_field_and_the_invoice_is_marked(
    usage: Ledger, open_dashboard: Open
) -> None:
    page = open_dashboard(usage.url, "invoice", refusals=True).page
    row = only_price(page, "API requests")
    field = row.locator("[data-pointer$='/price_per_unit']")
    field.fill("a lot")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(row.locator(".error:visible")).to_contain_text("is not a decimal number")
    expect(page.locator("#invoice")).to_have_class("stale")
    field.fill("2")
    expect(row.locator(".error:visible")).to_have_count(0)
    expect(page.locator("#invoice")).not_to_have_class("stale")


def test_swedish_decimals_are_typed_and_shown_with_a_comma(usage: Ledger, open_dashboard: Open) -> None:
    page = open_dashboard(usage.url, "invoice", language="sv").page
    row = only_price(page, "API requests")
    row.locator("[data-pointer$='/price_per_unit']").fill("1,25")
    line = Price("API requests", Decimal("1.25")).charge(customer_quantity(usage, "API requests", "cus_ada"))
    expect(read_total(page)).to_have_text(money(line.total, "USD").replace(".", ","))
    expect(page.locator("#invoice-lines tbody")).to_contain_text(f"{TIMES} 1,25 cent")


def test_the_invoice_follows_the_customer_the_period_and_new_events(usage: Ledger, open_dashboard: Open) -> None:
    page = open_dashboard(usage.url, "invoice").page
    only_price(page, "API requests")
    page.get_by_label("Customer").select_option("cus_bo")
    quantity = customer_quantity(usage, "API requests", "cus_bo")
    expect(page.locator("#invoice-lines tbody")).to_contain_text(f"{quantity:f} {TIMES} 1 cent")
    usage.send(event("evt_1", SERVED, customer_id="cus_bo"))
    expect(page.locator("#invoice-lines tbody")).to_contain_text(f"{quantity + 1:f} {TIMES} 1 cent")
    page.get_by_label("Period").select_option("last")
    expect(page.locator("#invoice-lines tbody")).to_contain_text(f"0 {TIMES} 1 cent")


# Test: clock, faults, reset


def test_the_clock_is_set_moved_and_given_back(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url, "test", refusals=True)
    page = dashboard.page
    expect(page.locator("#clock-strip")).to_contain_text("24 Nov 2026, 10:30:00")  # in Stockholm
    page.locator("#clock-set").fill("tomorrow")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#clock-form .error")).to_contain_text("is not an RFC 3339 time")
    page.locator("#clock-set").fill("2026-01-31T11:00:00Z")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#clock-now")).to_have_text("31 Jan 2026, 12:00:00")
    for step, wanted in (("1 hour", "31 Jan"), ("1 day", "1 Feb"), ("1 month", "1 Mar")):
        page.locator("#view-test").get_by_role("button", name=step).click()
        expect(page.locator("#clock-now")).to_have_text(f"{wanted} 2026, 13:00:00")
    assert usage.get("/local/clock")["now"].startswith("2026-03-01T12:00:00")
    dashboard.go("events")
    page.get_by_role("button", name="Back to real time").click()
    expect(page.locator("#clock-strip")).to_be_hidden()
    assert usage.get("/local/clock")["frozen"] is False


def test_a_month_from_the_31st_ends_on_the_last_day_of_the_next(ledger: Ledger, open_dashboard: Open) -> None:
    ledger.post("/local/clock", {"now": "2027-01-31T12:00:00Z"})
    page = open_dashboard(ledger.url, "test").page
    page.get_by_role("button", name="1 month").click()
    expect(page.locator("#clock-strip")).to_contain_text("28 Feb 2027")


def test_a_fault_meets_the_next_request_and_is_shown(ledger: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(ledger.url, "test")
    page = dashboard.page
    page.locator("#fault-kind").select_option("429")
    page.get_by_label("Retry-After").fill("3")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#fault-strip")).to_contain_text(f"1 {TIMES} error 429")
    answer = ledger.http.post("/events/ingest", json={"events": [event("evt_1")]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    expect(page.locator("#fault-strip")).to_be_hidden()
    dashboard.go("events")
    expect(dashboard.rows("refused").first).to_contain_text("refused 429")


def test_a_fault_is_taken_back(ledger: Ledger, open_dashboard: Open) -> None:
    page = open_dashboard(ledger.url, "test").page
    page.locator("#fault-kind").select_option("hang")
    page.get_by_label("Requests").fill("5")
    page.get_by_role("button", name="Add").click()
    page.locator("#fault-list").get_by_role("button", name="Clear").click()
    expect(page.locator("#fault-none")).to_be_visible()
    assert ledger.get("/local/faults")["pending"] == []


def test_the_keyboard_alone_goes_through_the_page(usage: Ledger, open_dashboard: Open) -> None:
    dashboard = open_dashboard(usage.url)
    page, keyboard = dashboard.page, dashboard.page.keyboard
    expect(dashboard.rows("stored").first).to_be_visible()
    keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    assert page.locator("#skip").evaluate("node => node.getBoundingClientRect().width > 50")
    keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    tab_to(page, "#feed .line")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keyboard.press("Enter")
    expect(page.locator(".detail pre")).to_be_visible()
    page.locator("#skip").focus()
    tab_to(page, 'nav a[href="#test"]')
    keyboard.press("Enter")
    tab_to(page, "#reset-open")
    keyboard.press("Enter")
    expect(page.locator("#reset-dialog")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    keyboard.press("Escape")
    expect(page.locator("#reset-dialog")).to_be_hidden()
    expect(page.locator("#reset-open")).to_be_focused()
    assert len(usage.get("/events")["items"]) == 10
    keyboard.press("Enter")
    tab_to(page, "#reset-yes")
    keyboard.press("Enter")
    expect(page.locator("#toast")).to_have_text("The ledger is empty.")
    assert usage.get("/events")["items"] == []
    dashboard.go("events")
    expect(page.locator("#feed-empty")).to_contain_text("meterprint demo")


def tab_to(page: Page, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"40 times Tab does not come to {selector}")
