"""Meters: which events match, and what they add up to."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterprint import Aggregation, Condition, Event, Filter, Meter, ValidationError

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
OPERATORS = [
    "equals",
    "not_equals",
    "greater_than",
    "greater_than_or_equals",
    "less_than",
    "less_than_or_equals",
    "contains",
    "does_not_contain",
]
TRUE = Condition("ok", "equals", True)


def event(number: int = 0, seconds: float = 0, **metadata: Any) -> Event:
    return Event(f"e{number}", "cus_ada", "api.request", NOW + timedelta(seconds=seconds), metadata)


def nested(levels: int) -> Filter:
    made = Filter("and", (TRUE,))
    for _ in range(levels - 1):
        made = Filter("and", (made,))
    return made


def wire(**values: Any) -> dict[str, Any]:
    base = {
        "name": "Requests",
        "event_name": "api.request",
        "aggregation": {"type": "count"},
        "measurement_unit": "request",
    }
    return {**base, **values}


def wire_filter(*conditions: Any) -> dict[str, Any]:
    return wire(filter={"conjunction": "and", "clauses": list(conditions)})


def refused(data: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        Meter.from_wire(data)
    (problem,) = caught.value.problems
    return problem.pointer, problem.reason


@pytest.mark.parametrize(
    ("actual", "operator", "value", "expected"),
    [
        ("GET", "equals", "GET", True),
        ("get", "equals", "GET", False),
        (5, "equals", 5.0, True),
        ("5", "equals", 5, False),
        (1, "equals", True, False),
        (True, "equals", True, True),
        (0, "equals", False, False),
        ("GET", "not_equals", "GET", False),
        ("GET", "not_equals", "POST", True),
        ("5", "not_equals", 5, True),
        (1, "not_equals", True, True),
        (5, "greater_than", 5, False),
        (5.5, "greater_than", 5, True),
        (5, "greater_than_or_equals", 5, True),
        (4, "less_than", 5, True),
        (5, "less_than", 5, False),
        (5, "less_than_or_equals", 5, True),
        ("9", "greater_than", 5, False),
        ("4", "less_than", 5, False),
        (True, "less_than", 5, False),
        ("b", "greater_than", "a", True),
        ("a", "greater_than", "B", True),
        ("a", "greater_than", 1, False),
        ("/v1/orders", "contains", "/v1/", True),
        ("/v1/orders", "contains", "ORDERS", False),
        (15, "contains", "5", False),
        ("/v1/orders", "does_not_contain", "/v2/", True),
        ("/v1/orders", "does_not_contain", "/v1/", False),
        (15, "does_not_contain", "7", False),
    ],
)
def test_a_condition_compares_without_converting(actual: Any, operator: Any, value: Any, expected: bool) -> None:
    assert Condition("key", operator, value).matches({"key": actual}) is expected


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_missing_key_never_matches(operator: Any) -> None:
    assert not Condition("key", operator, "x").matches({"other": "x"})


def test_and_needs_all_or_needs_one() -> None:
    clauses = (Condition("a", "equals", 1), Condition("b", "equals", 1))
    assert not Filter("and", clauses).matches({"a": 1, "b": 2})
    assert Filter("or", clauses).matches({"a": 1, "b": 2})
    assert not Filter("or", clauses).matches({})


def test_a_filter_has_the_root_and_three_levels() -> None:
    assert nested(4).matches({"ok": True})
    assert not nested(4).matches({"ok": False})
    with pytest.raises(ValidationError) as made:
        nested(5)
    data = wire(filter=nested(4).to_wire())
    data["filter"] = {"conjunction": "and", "clauses": [data["filter"]]}
    pointer, reason = refused(data)
    assert reason == made.value.problems[0].reason
    assert reason == "filters nested too deep: at most 3 levels are allowed below the root"
    assert pointer == "/filter" + "/clauses/0" * 4


def test_json_that_nests_without_end_is_refused_too() -> None:
    data: dict[str, Any] = {"conjunction": "and", "clauses": []}
    for _ in range(900):
        data = {"conjunction": "and", "clauses": [data]}
    assert "nested too deep" in refused(wire(filter=data))[1]


@pytest.mark.parametrize("count", [0, 11])
def test_a_filter_has_1_to_10_clauses(count: int) -> None:
    Filter("and", (TRUE,) * 10)
    with pytest.raises(ValidationError, match=f"/clauses: {count} clauses: give between 1 and 10"):
        Filter("and", (TRUE,) * count)


def test_conditions_and_filters_do_not_mix() -> None:
    with pytest.raises(ValidationError, match="conditions and filters mixed"):
        Filter("and", (TRUE, nested(1)))


@pytest.mark.parametrize(
    ("data", "pointer", "reason"),
    [
        ([], "", "[] is not a JSON object"),
        (wire(unit="x"), "/unit", "unknown field"),
        ({"name": "x", "event_name": "y", "aggregation": {"type": "count"}}, "/measurement_unit", "missing"),
        (wire(name=" "), "/name", "not a non-empty string"),
        (wire(description=5), "/description", "5 is not a string"),
        (wire(aggregation="count"), "/aggregation", "is not a JSON object"),
        (wire(aggregation={"type": "average"}), "/aggregation/type", "use one of count, sum, max, last"),
        (wire(aggregation={"type": "sum"}), "/aggregation/key", "sum needs the metadata key of the number it reads"),
        (wire(aggregation={"type": "count", "keys": 1}), "/aggregation/keys", "unknown field"),
        (wire(filter=[]), "/filter", "[] is not a JSON object"),
        (wire(filter={"conjunction": "xor", "clauses": []}), "/filter/conjunction", 'unknown conjunction "xor"'),
        (wire(filter={"conjunction": "and", "clauses": {}}), "/filter/clauses", "{} is not a list"),
        (
            wire_filter({"key": "a", "operator": "equal", "value": 1}),
            "/filter/clauses/0/operator",
            f'unknown operator "equal": use one of {", ".join(OPERATORS)}',
        ),
        (wire_filter({"key": "a", "operator": "equals"}), "/filter/clauses/0/value", "missing"),
        (wire_filter({"key": "", "operator": "equals", "value": 1}), "/filter/clauses/0/key", "non-empty"),
        (wire_filter({"key": "a", "operator": "equals", "value": None}), "/filter/clauses/0/value", "null is not"),
        (
            wire_filter({"key": "a", "operator": "equals", "value": float("nan")}),
            "/filter/clauses/0/value",
            "nan is not a finite number",
        ),
        (
            wire_filter({"key": "a", "operator": "contains", "value": 5}),
            "/filter/clauses/0/value",
            "5 is not a string, which contains needs",
        ),
        (
            wire_filter({"key": "a", "operator": "less_than", "value": True}),
            "/filter/clauses/0/value",
            "true has no order: use equals or not_equals",
        ),
    ],
)
def test_what_is_no_meter_is_refused_by_name(data: Any, pointer: str, reason: str) -> None:
    found = refused(data)
    assert found[0] == pointer
    assert reason in found[1]


def test_a_meter_matches_its_event_name_exactly() -> None:
    meter = Meter("M", "api.request", Aggregation("count"), "request")
    assert meter.matches(event())
    assert not meter.matches(Event("e", "c", "api.requests"))


def test_a_sum_is_exact() -> None:
    tenths = [event(number, n=0.1) for number in range(10)]
    assert Aggregation("sum", "n").of(tenths) == Decimal(1)
    large = [event(0, n=10**20), event(1, n=1), event(2, n=-0.5)]
    assert Aggregation("sum", "n").of(large) == Decimal("100000000000000000000.5")


@pytest.mark.parametrize(("kind", "expected"), [("sum", -4), ("max", -1), ("last", -3)])
def test_only_numbers_take_part(kind: Any, expected: int) -> None:
    events = [event(0, n=-1), event(1, n="100"), event(2, n=True), event(3), event(4, 1, n=-3)]
    assert Aggregation(kind, "n").of(events) == expected


@pytest.mark.parametrize("kind", ["count", "sum", "max", "last"])
def test_nothing_is_0(kind: Any) -> None:
    assert Aggregation(kind, "n").of([]) == 0


def test_last_goes_by_timestamp_and_ties_by_arrival() -> None:
    assert Aggregation("last", "n").of([event(0, 5, n=1), event(1, 0, n=2)]) == 1
    assert Aggregation("last", "n").of([event(0, 5, n=1), event(1, 5, n=2), event(2, 0, n=3)]) == 2


def test_a_meter_measures_only_what_matches() -> None:
    meter = Meter("M", "api.request", Aggregation("sum", "n"), "byte", Filter("and", (TRUE,)))
    assert meter.measure([event(0, n=1, ok=True), event(1, n=2, ok=False), event(2, n=4, ok=True)]) == 5


def test_the_id_is_no_part_of_what_makes_meters_equal() -> None:
    one, other = (Meter("M", "n", Aggregation("count"), "x", id=name) for name in ("mtr_1", "mtr_2"))
    assert one == other
    assert one != Meter("M", "n", Aggregation("count"), "y")


# Filters against an evaluator that reads the wire format alone.

values = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "1"]), st.integers(-2, 2), st.sampled_from([0.5, 1.0]), st.booleans()
)
metadata = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    operator = draw(st.sampled_from(OPERATORS))
    allowed = values
    if "contain" in operator:
        allowed = values.filter(lambda value: isinstance(value, str))
    if "than" in operator:
        allowed = values.filter(lambda value: not isinstance(value, bool))
    return Condition(draw(st.sampled_from("abc")), operator, draw(allowed))  # type: ignore[arg-type]


def filters(levels: int) -> st.SearchStrategy[Filter]:
    joined = st.sampled_from(["and", "or"])
    flat = st.builds(Filter, joined, st.lists(conditions(), min_size=1, max_size=3).map(tuple))
    if levels == 1:
        return flat
    return flat | st.builds(Filter, joined, st.lists(filters(levels - 1), min_size=1, max_size=3).map(tuple))


def type_of(value: Any) -> str:
    return "bool" if value is True or value is False else "text" if isinstance(value, str) else "number"


def evaluate(rule: dict[str, Any], data: dict[str, Any]) -> bool:
    if "clauses" in rule:
        results = [evaluate(clause, data) for clause in rule["clauses"]]
        return False not in results if rule["conjunction"] == "and" else True in results
    if rule["key"] not in data:
        return False
    return compare(data[rule["key"]], rule["operator"], rule["value"])


def compare(actual: Any, operator: str, value: Any) -> bool:
    same = type_of(actual) == type_of(value)
    if operator in ("equals", "not_equals"):
        return bool(same and actual == value) == (operator == "equals")
    if not same:
        return False
    if operator == "contains":
        return value in [actual[i:j] for i in range(len(actual) + 1) for j in range(i, len(actual) + 1)]
    if operator == "does_not_contain":
        return not compare(actual, "contains", value)
    if operator.endswith("or_equals") and actual == value:
        return True
    return bool(actual != value) and ([value, actual] == sorted([value, actual])) == operator.startswith("greater")


@given(filters(4), metadata)
def test_a_filter_agrees_with_an_independent_evaluator(rule: Filter, data: dict[str, Any]) -> None:
    assert rule.matches(data) is evaluate(json.loads(json.dumps(rule.to_wire())), data)


@given(filters(4), st.sampled_from([Aggregation("count"), Aggregation("sum", "n"), Aggregation("last", "n")]))
def test_a_meter_survives_the_wire(rule: Filter, aggregation: Aggregation) -> None:
    meter = Meter("M", "api.request", aggregation, "x", rule, "for tests")
    assert Meter.from_wire(json.loads(json.dumps(meter.to_wire()))) == meter
