"""Prices: what a quantity costs, rounded once."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterprint import Price, ValidationError, invoice
from meterprint.pricing import money

quantities = st.decimals(0, 10**12, places=6)
prices = st.builds(
    Price,
    st.sampled_from(["A", "B", "C"]),
    st.decimals(0, "99999.999999999999", places=12),
    st.decimals(0, 10**9, places=3),
)


def test_what_is_free_is_not_charged() -> None:
    price = Price("API requests", Decimal(2), free_threshold=Decimal(1000))
    assert [price.charge(quantity).total for quantity in (0, 999, 1000, 1001, 2500)] == [0, 0, 0, 2, 3000]


@pytest.mark.parametrize(("quantity", "total"), [("0.5", 1), ("1.5", 2), ("2.5", 3), ("0.49999", 0), ("1.499999", 1)])
def test_half_a_cent_is_rounded_up_once_at_the_total(quantity: str, total: int) -> None:
    assert Price("M", Decimal(1)).charge(Decimal(quantity)).total == total


def test_prices_far_below_a_cent_add_up_exactly() -> None:
    assert Price("M", Decimal("0.000000000001")).charge(5 * 10**11).total == 1
    assert Price("M", Decimal("0.000000000001")).charge(4 * 10**11).total == 0
    assert Price("M", Decimal("99999.999999999999")).charge(10**12).total == 99_999_999_999_999_999


def test_a_line_explains_itself() -> None:
    line = Price("API requests", Decimal(2), free_threshold=Decimal(1000)).charge(2500)
    assert line.explanation == "2,500 - 1,000 free = 1,500 x 2 cents = 30.00 USD"
    assert (line.consumed, line.chargeable, line.total) == (Decimal(2500), Decimal(1500), 3000)


@pytest.mark.parametrize(
    ("price", "explanation"),
    [
        (Price("M", Decimal(1)), "3 x 1 cent = 0.03 USD"),
        (Price("M", Decimal(7), currency="JPY"), "3 x 7 minor units of JPY = 21 JPY"),
        (Price("M", Decimal("0.001"), currency="EUR"), "3 x 0.001 cents = 0.00 EUR"),
    ],
)
def test_an_explanation_fits_the_currency(price: Price, explanation: str) -> None:
    assert price.charge(3).explanation == explanation


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(3000, "USD", "30.00 USD"), (5, "SEK", "0.05 SEK"), (1234567, "JPY", "1,234,567 JPY"), (1500, "KWD", "1.500 KWD")],
)
def test_money_has_the_digits_of_its_currency(minor: int, currency: str, text: str) -> None:
    assert money(minor, currency) == text


@pytest.mark.parametrize(
    ("values", "pointer", "reason"),
    [
        ({"price_per_unit": 0.1}, "/price_per_unit", "0.1 is a float, which does not hold money exactly"),
        ({"price_per_unit": Decimal(-1)}, "/price_per_unit", "-1 is not a finite number of at least 0"),
        ({"price_per_unit": Decimal("NaN")}, "/price_per_unit", "NaN is not a finite number"),
        ({"price_per_unit": "two"}, "/price_per_unit", '"two" is not a decimal number'),
        ({"price_per_unit": Decimal(100_000)}, "/price_per_unit", "more than 5 integer digits or 12 decimals"),
        ({"price_per_unit": Decimal("1E-13")}, "/price_per_unit", "more than 5 integer digits or 12 decimals"),
        ({"free_threshold": Decimal(-1)}, "/free_threshold", "-1 is not a finite number of at least 0"),
        ({"currency": "usd"}, "/currency", '"usd" is not an ISO 4217 code: write it like USD'),
    ],
)
def test_a_price_that_cannot_be_is_refused_by_name(values: dict[str, Any], pointer: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Price(**{"meter": "M", "price_per_unit": Decimal(1), **values})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert reason in problem.reason


def test_a_price_may_be_given_as_text() -> None:
    assert Price("M", "0.2").price_per_unit == Decimal("0.2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_invoice_is_in_one_currency() -> None:
    with pytest.raises(ValidationError, match="more than one currency: EUR, USD"):
        invoice([Price("A", Decimal(1)), Price("B", Decimal(1), currency="EUR")], {})


def test_a_meter_without_usage_costs_nothing() -> None:
    bill = invoice([Price("A", Decimal(5))], {"B": Decimal(7)})
    assert (bill.total, bill.lines[0].consumed) == (0, Decimal(0))


@given(prices, quantities, quantities)
def test_a_charge_is_never_negative_and_never_falls_with_usage(price: Price, one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))
    assert 0 <= price.charge(less).total <= price.charge(more).total


@given(st.lists(prices, max_size=4), st.dictionaries(st.sampled_from(["A", "B", "C"]), quantities))
def test_an_invoice_is_the_sum_of_its_lines(tariff: list[Price], usage: dict[str, Decimal]) -> None:
    bill = invoice(tariff, usage)
    assert bill.total == sum(line.total for line in bill.lines)
    assert [line.price for line in bill.lines] == tariff
