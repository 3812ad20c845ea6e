"""Every blueprint agrees with itself: its events, meters, prices and sample usage."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meterprint import Blueprint, Event, Filter, Meter, ValidationError, invoice
from meterprint.blueprints import BLUEPRINTS

ROOT = Path(__file__).parent.parent
GATEWAY = BLUEPRINTS["api_gateway"]
each = pytest.mark.parametrize("blueprint", BLUEPRINTS.values(), ids=BLUEPRINTS)


def keys_of(rule: Filter) -> Iterator[str]:
    for clause in rule.clauses:
        if isinstance(clause, Filter):
            yield from keys_of(clause)
        else:
            yield clause.key


@each
def test_the_samples_are_valid_events(blueprint: Blueprint) -> None:
    for event in blueprint.sample_events("cus_ada"):
        blueprint.check(event)


@each
def test_the_samples_measure_and_cost_what_they_must(blueprint: Blueprint) -> None:
    events = list(blueprint.sample_events("cus_ada"))
    read = {meter.name: meter.measure(events) for meter in blueprint.meters}
    assert read == blueprint.quantities
    assert invoice(blueprint.prices, read).total == blueprint.invoice_total > 0


@each
def test_every_meter_counts_some_samples_and_those_with_a_filter_not_all(blueprint: Blueprint) -> None:
    events = list(blueprint.sample_events("cus_ada"))
    for meter in blueprint.meters:
        counted = sum(meter.matches(event) for event in events)
        assert counted > 0
        assert counted < len(events) or meter.filter is None


@each
def test_every_price_and_quantity_names_a_meter(blueprint: Blueprint) -> None:
    names = [meter.name for meter in blueprint.meters]
    assert len(set(names)) == len(names)
    assert {price.meter for price in blueprint.prices} <= set(names)
    assert set(blueprint.quantities) == set(names)


@each
def test_meters_read_only_keys_that_the_events_have(blueprint: Blueprint) -> None:
    for meter in blueprint.meters:
        (kind,) = [kind for kind in blueprint.events if kind.name == meter.event_name]
        used = {meter.aggregation.key} - {None} | set(keys_of(meter.filter) if meter.filter else ())
        assert used <= {field.name for field in kind.fields}


@each
def test_keys_are_snake_case_and_numbers_carry_their_unit(blueprint: Blueprint) -> None:
    for kind in blueprint.events:
        for field in kind.fields:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", field.name)
            assert field.fault(field.example) is None
            if field.unit:
                assert field.unit.rstrip("s") in field.name


@each
def test_a_blueprint_has_its_page_in_both_languages(blueprint: Blueprint) -> None:
    for language in ("en", "sv"):
        assert (ROOT / "docs" / language / f"{blueprint.slug.replace('_', '-')}.md").is_file()


@each
def test_meters_survive_the_wire(blueprint: Blueprint) -> None:
    for meter in blueprint.meters:
        assert Meter.from_wire(meter.to_wire()) == meter


@pytest.mark.parametrize(
    ("change", "pointer", "reason"),
    [
        ({"status_code": "200"}, "/metadata/status_code", '"200" is not of type integer'),
        ({"status_code": 200.0}, "/metadata/status_code", "200.0 is not of type integer"),
        ({"status_code": True}, "/metadata/status_code", "true is not of type integer"),
        ({"duration_ms": "12"}, "/metadata/duration_ms", '"12" is not of type number'),
        ({"method": 1}, "/metadata/method", "1 is not of type string"),
        ({"statusCode": 200}, "/metadata/statusCode", "not a field of api.request: endpoint, method"),
    ],
)
def test_an_event_that_departs_from_the_definition_is_refused(change: Any, pointer: str, reason: str) -> None:
    event = Event("e", "cus_ada", "api.request", metadata=GATEWAY.events[0].sample(**change))
    with pytest.raises(ValidationError) as caught:
        GATEWAY.check(event)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert reason in problem.reason


def test_a_missing_key_and_an_unknown_event_are_refused() -> None:
    with pytest.raises(ValidationError, match="/metadata/endpoint: missing: every api.request has it"):
        GATEWAY.check(Event("e", "cus_ada", "api.request", metadata={"method": "GET"}))
    with pytest.raises(ValidationError, match='/event_name: "api.call" is not an event of api_gateway: api.request'):
        GATEWAY.check(Event("e", "cus_ada", "api.call"))


def test_an_optional_key_may_be_there_or_not() -> None:
    GATEWAY.check(Event("e", "cus_ada", "api.request", metadata=GATEWAY.events[0].sample(api_version="2026-11")))
