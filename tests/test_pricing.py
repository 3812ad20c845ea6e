"""Prices: what a quantity costs, rounded once, and how each line explains itself."""

import re
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import build_site
from meterprint import Invoice, Price, Tier, ValidationError, invoice
from meterprint.pricing import WORDS, money


def tier(up_to: str | None, price: str, fee: str = "0") -> Tier:
    return Tier(None if up_to is None else Decimal(up_to), Decimal(price), Decimal(fee))


def graduated(*tiers: Tier, free: int = 0) -> Price:
    return Price("M", tiers=tiers, mode="graduated", free_threshold=Decimal(free))


def volume(*tiers: Tier, free: int = 0) -> Price:
    return Price("M", tiers=tiers, mode="volume", free_threshold=Decimal(free))


def package(size: str, price: str, free: int = 0) -> Price:
    return Price("M", Decimal(price), Decimal(free), package_size=Decimal(size))


CHEAPER = (tier("1000", "5"), tier("5000", "2"), tier(None, "1"))
# The tariffs that the pages of billing vendors use to explain themselves, in cents.
FONTS = (tier("5", "700"), tier("10", "650"), tier(None, "600"))
REQUESTS = (tier("1000", "1"), tier("10000", "0.8"), tier(None, "0.5"))
CALLS = (tier("10000", "0.10", "1000"), tier("50000", "0.08", "1000"), tier("100000", "0.06", "1000"))
TRANSFER_GB = (tier("10240", "9"), tier("51200", "8.5"), tier("153600", "7"), tier(None, "5"))
FEES = (tier("10", "0", "500"), tier("100", "10", "200"), tier(None, "5", "100"))

steps = st.decimals("0.001", 10**6, places=3)
meters = st.sampled_from(["A", "B", "C"])
quantities = st.decimals(0, 2 * 10**6, places=3) | st.decimals(0, 10**12, places=6)
unit_prices = st.decimals(0, "99999.999999999999", places=12) | st.decimals(0, 10, places=1)
thresholds = st.just(Decimal(0)) | st.decimals(0, 10**5, places=3) | st.decimals(0, 10**9, places=3)
fees = st.just(Decimal(0)) | st.decimals(0, 10**6, places=4)
tier_lists = st.builds(
    lambda ends, end, rest: (*(Tier(up_to, *paid) for up_to, paid in sorted(ends.items())), Tier(end, *rest)),
    st.dictionaries(steps, st.tuples(unit_prices, fees), max_size=4),
    st.none(),
    st.tuples(unit_prices, fees),
)
flat_prices = st.builds(Price, meters, unit_prices, thresholds)
package_prices = st.builds(Price, meters, unit_prices, thresholds, package_size=steps)
graduated_prices = st.builds(
    lambda meter, free, tiers: Price(meter, free_threshold=free, tiers=tiers, mode="graduated"),
    meters,
    thresholds,
    tier_lists,
)
volume_prices = st.builds(
    lambda meter, free, tiers: Price(meter, free_threshold=free, tiers=tiers, mode="volume"),
    meters,
    thresholds,
    tier_lists,
)
rising_prices = flat_prices | package_prices | graduated_prices
prices = rising_prices | volume_prices


def test_what_is_free_is_not_charged() -> None:
    price = Price("API requests", Decimal(2), free_threshold=Decimal(1000))
    assert [price.charge(quantity).total for quantity in (0, 999, 1000, 1001, 2500)] == [0, 0, 0, 2, 3000]


@pytest.mark.parametrize(("quantity", "total"), [("0.5", 1), ("1.5", 2), ("2.5", 3), ("0.49999", 0), ("1.499999", 1)])
def test_half_a_cent_is_rounded_up_once_at_the_total(quantity: str, total: int) -> None:
    assert Price("M", Decimal(1)).charge(Decimal(quantity)).total == total


def test_tiers_are_added_up_before_they_are_rounded() -> None:
    tiers = (tier("1", "0.4"), tier("2", "0.4"), tier(None, "0.4", "0.3"))
    assert [graduated(*tiers).charge(quantity).total for quantity in (1, 2, 3)] == [0, 1, 2]


def test_prices_far_below_a_cent_add_up_exactly() -> None:
    assert Price("M", Decimal("0.000000000001")).charge(5 * 10**11).total == 1
    assert Price("M", Decimal("0.000000000001")).charge(4 * 10**11).total == 0
    assert Price("M", Decimal("99999.999999999999")).charge(10**12).total == 99_999_999_999_999_999


def test_the_largest_and_smallest_quantities_of_a_meter_are_charged_exactly() -> None:
    line = Price("M", Decimal(1), free_threshold=Decimal(1)).charge(Decimal("1E+308"))
    assert line.total == 10**308 - 1
    assert line.explanation.endswith(f" = {money(line.total, 'USD')}")
    assert money(line.total, "USD") == f"{(10**308 - 1) // 100:,}.99 USD"
    a_little_more = Decimal(f"{10**308}.{'0' * 323}1")
    assert package("1", "1").charge(a_little_more).total == 10**308 + 1
    assert volume(tier("1E+308", "2"), tier(None, "1")).charge(a_little_more).total == 10**308


@pytest.mark.parametrize(
    ("price", "totals"),
    [
        (graduated(*FONTS), {0: 0, 1: 700, 5: 3500, 6: 4150, 10: 6750, 11: 7350, 20: 12750, 25: 15750}),
        (volume(*FONTS), {0: 0, 1: 700, 5: 3500, 6: 3900, 10: 6500, 11: 6600, 20: 12000, 25: 15000}),
        (graduated(*REQUESTS), {1000: 1000, 1001: 1001, 10_000: 8200, 15_000: 10_700}),
        (volume(*REQUESTS), {1000: 1000, 1001: 801, 10_000: 8000, 10_001: 5001, 15_000: 7500}),
        (volume(*CALLS, tier(None, "0.04", "1000")), {0: 0, 10_000: 2000, 65_000: 4900, 100_001: 5000}),
        (graduated(*TRANSFER_GB, free=100), {100: 0, 101: 9, 10_340: 92_160, 60_000: 501_220, 153_701: 1_157_125}),
        (graduated(*FEES), {0: 0, 1: 500, 10: 500, 11: 710, 100: 1600, 101: 1705}),
        (volume(*FEES), {0: 0, 1: 500, 10: 500, 11: 310, 100: 1200, 101: 605}),
        (package("1000", "150"), {0: 0, 1: 150, 1000: 150, 1001: 300, 2500: 450}),
        (package("1000", "150", free=1000), {1000: 0, 1001: 150, 2000: 150, 3500: 450}),
        (package("0.5", "3"), {1: 6}),
    ],
)
def test_a_tariff_costs_what_it_costs_by_hand(price: Price, totals: dict[int, int]) -> None:
    assert {quantity: price.charge(quantity).total for quantity in totals} == totals


def test_parts_of_a_unit_fall_in_tiers_and_packages_too() -> None:
    assert graduated(tier("1", "10"), tier(None, "4")).charge(Decimal("1.5")).total == 12
    assert volume(tier("1", "10"), tier(None, "4")).charge(Decimal("1.001")).total == 4
    assert package("1000", "150").charge(Decimal("1000.000001")).total == 300


def test_a_line_explains_itself() -> None:
    line = Price("API requests", Decimal(2), free_threshold=Decimal(1000)).charge(2500)
    assert line.explanation == "2,500 - 1,000 free = 1,500 x 2 cents = 30.00 USD"
    assert (line.consumed, line.chargeable, line.total) == (Decimal(2500), Decimal(1500), 3000)


@pytest.mark.parametrize(
    ("price", "quantity", "explanation"),
    [
        (graduated(*CHEAPER), 0, "0 x 5 cents = 0.00 USD"),
        (graduated(*CHEAPER), 1000, "1,000 x 5 cents = 50.00 USD"),
        (graduated(*CHEAPER), 2500, "1,000 x 5 cents + 1,500 x 2 cents = 80.00 USD"),
        (graduated(*CHEAPER), 6000, "1,000 x 5 cents + 4,000 x 2 cents + 1,000 x 1 cent = 140.00 USD"),
        (graduated(*CHEAPER, free=1000), 500, "500 - 1,000 free = 0 x 5 cents = 0.00 USD"),
        (graduated(*CHEAPER, free=1000), 1500, "1,500 - 1,000 free = 500 x 5 cents = 25.00 USD"),
        (
            graduated(*CHEAPER, free=1000),
            3500,
            "3,500 - 1,000 free = 2,500: 1,000 x 5 cents + 1,500 x 2 cents = 80.00 USD",
        ),
        (graduated(*FEES), 0, "0 x 0 cents = 0.00 USD"),
        (graduated(*FEES), 15, "10 x 0 cents + 500 cents flat fee + 5 x 10 cents + 200 cents flat fee = 7.50 USD"),
        (graduated(tier(None, "2", "1")), 3, "3 x 2 cents + 1 cent flat fee = 0.07 USD"),
        (volume(*CHEAPER), 0, "0 x 5 cents = 0.00 USD (tier up to 1,000)"),
        (volume(*CHEAPER), 1000, "1,000 x 5 cents = 50.00 USD (tier up to 1,000)"),
        (volume(*CHEAPER), 2500, "2,500 x 2 cents = 50.00 USD (tier over 1,000 up to 5,000)"),
        (volume(*CHEAPER), 6000, "6,000 x 1 cent = 60.00 USD (tier over 5,000)"),
        (
            volume(*CHEAPER, free=1000),
            3500,
            "3,500 - 1,000 free = 2,500 x 2 cents = 50.00 USD (tier over 1,000 up to 5,000)",
        ),
        (volume(*FEES), 20, "20 x 10 cents + 200 cents flat fee = 4.00 USD (tier over 10 up to 100)"),
        (volume(tier(None, "2")), 2500, "2,500 x 2 cents = 50.00 USD"),
        (package("1000", "150"), 0, "0 = 0 packages of 1,000 x 150 cents = 0.00 USD"),
        (package("1000", "150"), 1, "1 = 1 package of 1,000 x 150 cents = 1.50 USD"),
        (package("1000", "150"), 2500, "2,500 = 3 packages of 1,000 x 150 cents = 4.50 USD"),
        (
            package("1000", "150", free=1000),
            3500,
            "3,500 - 1,000 free = 2,500 = 3 packages of 1,000 x 150 cents = 4.50 USD",
        ),
    ],
)
def test_a_line_explains_each_kind_of_price(price: Price, quantity: int, explanation: str) -> None:
    assert price.charge(quantity).explanation == explanation


@pytest.mark.parametrize(
    ("price", "explanation"),
    [
        (Price("M", Decimal(1)), "3 x 1 cent = 0.03 USD"),
        (Price("M", Decimal(7), currency="JPY"), "3 x 7 minor units of JPY = 21 JPY"),
        (Price("M", Decimal(1), currency="KWD"), "3 x 1 minor unit of KWD = 0.003 KWD"),
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
        ({"price_per_unit": 0.1}, "/price_per_unit", "0.1 is a float, which does not hold decimals exactly"),
        ({"price_per_unit": Decimal(-1)}, "/price_per_unit", "-1 is not a finite number of at least 0"),
        ({"price_per_unit": Decimal("NaN")}, "/price_per_unit", "NaN is not a finite number"),
        ({"price_per_unit": "two"}, "/price_per_unit", '"two" is not a decimal number'),
        ({"price_per_unit": Decimal(100_000)}, "/price_per_unit", "more than 5 integer digits or 12 decimals"),
        ({"price_per_unit": Decimal("1E-13")}, "/price_per_unit", "more than 5 integer digits or 12 decimals"),
        ({"price_per_unit": None}, "/price_per_unit", "missing: give it, or tiers"),
        ({"free_threshold": Decimal(-1)}, "/free_threshold", "-1 is not a finite number of at least 0"),
        ({"free_threshold": Decimal("1E+400")}, "/free_threshold", "more than 400 integer digits or 400 decimals"),
        ({"currency": "usd"}, "/currency", '"usd" is not an ISO 4217 code: write it like USD'),
        ({"mode": "volume"}, "/mode", "there are no tiers to charge: leave it out, or give tiers"),
        ({"package_size": Decimal(-1)}, "/package_size", "-1 is not a finite number of at least 0"),
        ({"package_size": Decimal(0)}, "/package_size", "a package of 0 units holds nothing: give more than 0"),
    ],
)
def test_a_price_that_cannot_be_is_refused_by_name(values: dict[str, Any], pointer: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Price(**{"meter": "M", "price_per_unit": Decimal(1), **values})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("values", "pointer", "reason"),
    [
        ({"price_per_unit": Decimal(1)}, "/price_per_unit", "each tier has its own: leave it out"),
        ({"package_size": Decimal(10)}, "/package_size", "tiers count units, not packages: leave out one or the other"),
        ({"mode": None}, "/mode", "null is no way to charge tiers: use graduated or volume"),
        ({"mode": "slab"}, "/mode", '"slab" is no way to charge tiers: use graduated or volume'),
        ({"tiers": [tier("10", "2")]}, "/tiers/0/up_to", "10 is the end of the last tier, which must have none"),
        ({"tiers": [tier(None, "2"), tier(None, "1")]}, "/tiers/0/up_to", "only the last tier has no end: give the"),
        ({"tiers": [tier("0", "2"), tier(None, "1")]}, "/tiers/0/up_to", "0 is not above 0, where this tier begins"),
        (
            {"tiers": [tier("1000", "2"), tier("1000", "1"), tier(None, "1")]},
            "/tiers/1/up_to",
            "1,000 is not above 1,000, where this tier begins: order tiers by their ends",
        ),
        ({"tiers": [tier("2", "2"), tier("1", "1"), tier(None, "1")]}, "/tiers/1/up_to", "1 is not above 2"),
        ({"tiers": [tier("-1", "2"), tier(None, "1")]}, "/tiers/0/up_to", "-1 is not a finite number of at least 0"),
        ({"tiers": [tier("Infinity", "2"), tier(None, "1")]}, "/tiers/0/up_to", "Infinity is not a finite number"),
        ({"tiers": [tier("1", "2"), tier(None, "-1")]}, "/tiers/1/price_per_unit", "-1 is not a finite number of at"),
        ({"tiers": [tier(None, "100000")]}, "/tiers/0/price_per_unit", "more than 5 integer digits or 12 decimals"),
        ({"tiers": [tier(None, "1", "-1")]}, "/tiers/0/flat_fee", "-1 is not a finite number of at least 0"),
    ],
)
def test_tiers_that_cannot_be_are_refused_by_their_place(values: dict[str, Any], pointer: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Price(**{"meter": "M", "tiers": [tier("10", "2"), tier(None, "1")], "mode": "graduated", **values})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        (Decimal(-1), "-1 is not a finite number of at least 0"),
        (Decimal("Infinity"), "Infinity is not a finite number"),
        (Decimal("NaN"), "NaN is not a finite number"),
        (Decimal("sNaN"), "sNaN is not a finite number"),
        (Decimal("1E+400"), "more than 400 integer digits or 400 decimals"),
        (2.5, "2.5 is a float, which does not hold decimals exactly: write Decimal('2.5')"),
    ],
)
def test_a_quantity_that_cannot_be_is_refused(quantity: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=f"/consumed: .*{re.escape(reason)}"):
        Price("M", Decimal(1)).charge(quantity)
    with pytest.raises(ValidationError, match=f"/quantities/M: .*{re.escape(reason)}"):
        invoice([Price("M", Decimal(1))], {"M": quantity})


def test_a_quantity_that_nothing_prices_may_be_negative() -> None:
    assert invoice([Price("A", Decimal(1))], {"A": Decimal(2), "degrees": Decimal(-5)}).total == 2


def test_a_zero_has_no_sign() -> None:
    assert Price("M", Decimal("-0")).charge(Decimal("-0")).explanation == "0 x 0 cents = 0.00 USD"


def test_a_price_may_be_given_as_text() -> None:
    values: dict[str, Any] = {"tiers": [Tier("10", "0.2", "5"), Tier(None, "0.1")], "mode": "volume"}  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert Price("M", "0.2").price_per_unit == Decimal("0.2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert Price("M", **values).tiers == (tier("10", "0.2", "5"), tier(None, "0.1"))


def test_an_invoice_is_in_one_currency() -> None:
    with pytest.raises(ValidationError, match="more than one currency: EUR, USD"):
        invoice([Price("A", Decimal(1)), Price("B", Decimal(1), currency="EUR")], {})


def test_a_meter_without_usage_costs_nothing() -> None:
    bill = invoice([Price("A", Decimal(5))], {"B": Decimal(7)})
    assert (bill.total, bill.lines[0].consumed) == (0, Decimal(0))
    assert invoice([], {}) == Invoice((), 0)


def by_fractions(price: Price, quantity: Decimal) -> int:
    """What a quantity costs, worked out another way: in fractions, rounded at the end."""
    units = max(Fraction(quantity) - Fraction(price.free_threshold), Fraction(0))
    if price.price_per_unit is not None:
        counted = ceil(units / Fraction(price.package_size)) if price.package_size else units
        return floor(counted * Fraction(price.price_per_unit) + Fraction(1, 2))
    cost, start = Fraction(0), Fraction(0)
    for step in price.tiers:
        end = units if step.up_to is None else Fraction(step.up_to)
        if price.mode == "graduated" and units > start:
            cost += (min(units, end) - start) * Fraction(step.price_per_unit) + Fraction(step.flat_fee)
        if price.mode == "volume" and start < units <= end:
            cost += units * Fraction(step.price_per_unit) + Fraction(step.flat_fee)
        start = end
    return floor(cost + Fraction(1, 2))


@given(prices, quantities)
def test_a_charge_is_what_fractions_give_rounded_once(price: Price, quantity: Decimal) -> None:
    total = price.charge(quantity).total
    assert total == by_fractions(price, quantity)
    assert total >= 0


@given(rising_prices, quantities, quantities)
def test_a_charge_never_falls_with_usage(price: Price, one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))
    assert price.charge(less).total <= price.charge(more).total


@given(volume_prices, st.data())
def test_a_charge_by_volume_never_falls_within_a_tier(price: Price, data: st.DataObject) -> None:
    starts = [Decimal(0), *(step.up_to for step in price.tiers if step.up_to is not None)]
    start, end = data.draw(st.sampled_from([*pairwise(starts), (starts[-1], Decimal(10**9))]))
    within = st.decimals(start + Decimal("0.001"), end, places=3)
    less, more = sorted((data.draw(within), data.draw(within)))
    free = price.free_threshold
    assert price.charge(free + less).total <= price.charge(free + more).total


@given(graduated_prices, st.sampled_from([Decimal("0.000001"), Decimal("0.001"), Decimal(1)]))
def test_graduated_tiers_meet_at_their_borders(price: Price, step: Decimal) -> None:
    for ended, begun in pairwise(price.tiers):
        assert ended.up_to is not None
        border = price.free_threshold + ended.up_to
        if begun.up_to is None or ended.up_to + step <= begun.up_to:
            rise = price.charge(border + step).total - price.charge(border).total
            assert 0 <= rise <= ceil(step * begun.price_per_unit + begun.flat_fee)


@given(unit_prices, thresholds, quantities)
def test_one_tier_without_fee_is_a_flat_price(per_unit: Decimal, free: Decimal, quantity: Decimal) -> None:
    tiers = (Tier(None, per_unit),)
    flat, *tiered = (
        price.charge(quantity)
        for price in (
            Price("M", per_unit, free),
            Price("M", free_threshold=free, tiers=tiers, mode="graduated"),
            Price("M", free_threshold=free, tiers=tiers, mode="volume"),
        )
    )
    for line in tiered:
        assert (line.total, line.chargeable, line.explanation) == (flat.total, flat.chargeable, flat.explanation)


@given(unit_prices, st.sets(steps), quantities)
def test_tiers_of_one_price_are_a_flat_price(per_unit: Decimal, ends: set[Decimal], quantity: Decimal) -> None:
    tiers = tuple(Tier(end, per_unit) for end in (*sorted(ends), None))
    flat = Price("M", per_unit).charge(quantity).total
    assert Price("M", tiers=tiers, mode="graduated").charge(quantity).total == flat
    assert Price("M", tiers=tiers, mode="volume").charge(quantity).total == flat


@given(unit_prices, st.integers(0, 10**12))
def test_packages_of_one_are_a_flat_price(per_unit: Decimal, quantity: int) -> None:
    packaged = Price("M", per_unit, package_size=Decimal(1))
    assert packaged.charge(quantity).total == Price("M", per_unit).charge(quantity).total


@given(st.lists(prices, max_size=4), st.dictionaries(meters, quantities))
def test_an_invoice_is_the_sum_of_its_lines(tariff: list[Price], usage: dict[str, Decimal]) -> None:
    bill = invoice(tariff, usage)
    assert bill.total == sum(line.total for line in bill.lines)
    assert [line.price for line in bill.lines] == tariff
    assert [line.consumed for line in bill.lines] == [usage.get(price.meter, 0) for price in tariff]


def numbers(pattern: str, text: str) -> list[tuple[Fraction, ...]]:
    found = re.finditer(pattern.replace("N", r"([\d,]+(?:\.\d+)?)"), text)
    return [tuple(Fraction(number.replace(",", "")) for number in match.groups()) for match in found]


@given(prices, quantities)
def test_an_explanation_adds_up_to_the_total(price: Price, quantity: Decimal) -> None:
    line = price.charge(quantity)
    assert numbers("= N USD", line.explanation) == [(Fraction(line.total, 100),)]
    products = numbers("N packages? of N x N cents?" if price.package_size else "N x N cents?", line.explanation)
    added = sum((counted[0] * counted[-1] for counted in products), Fraction(0))
    added += sum((fee for (fee,) in numbers("N cents? flat fee", line.explanation)), Fraction(0))
    assert floor(added + Fraction(1, 2)) == line.total


@given(prices, quantities)
def test_the_words_of_an_explanation_can_all_be_translated(price: Price, quantity: Decimal) -> None:
    explanation = price.charge(quantity).explanation
    rest = re.sub("|".join(sorted(WORDS, key=len, reverse=True)), "", explanation)
    assert set(re.findall("[A-Za-z]+", rest)) <= {"x", "USD"}


@pytest.mark.parametrize(
    ("price", "quantity", "swedish"),
    [
        (Price("M", Decimal(2), Decimal(1000)), 2500, "2_500 - 1_000 fria = 1_500 x 2 cent = 30,00 USD"),
        (graduated(*CHEAPER), 2500, "1_000 x 5 cent + 1_500 x 2 cent = 80,00 USD"),
        (graduated(*FEES), 5, "5 x 0 cent + 500 cent fast avgift = 5,00 USD"),
        (volume(*CHEAPER), 2500, "2_500 x 2 cent = 50,00 USD (steg över 1_000 till och med 5_000)"),
        (package("1000", "150"), 1, "1 = 1 paket om 1_000 x 150 cent = 1,50 USD"),
        (package("1000", "150"), 2500, "2_500 = 3 paket om 1_000 x 150 cent = 4,50 USD"),
        (Price("M", Decimal(1), currency="KWD"), 3, "3 x 1 underenhet av KWD = 0,003 KWD"),
        (Price("M", Decimal(7), currency="JPY"), 3, "3 x 7 underenheter av JPY = 21 JPY"),
    ],
)
def test_the_site_explains_in_swedish(price: Price, quantity: int, swedish: str) -> None:
    texts = build_site.Texts("sv")
    signs = swedish.replace("_", "\u00a0").replace(" x ", " \u00d7 ").replace(" - ", " \u2212 ")
    assert texts.sum(price.charge(quantity).explanation) == signs
    assert not texts.missing


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_translated_whether_a_blueprint_uses_it_or_not(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = build_site.Texts("sv")
    texts.translations = {other: other for other in WORDS}
    texts.check()
    del texts.translations[word]
    with pytest.raises(SystemExit):
        texts.check()
    assert capsys.readouterr().err == f'docs/tables.sv.toml lacks: "{word}"\n'
