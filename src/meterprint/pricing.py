"""Prices: what a quantity costs. Money is Decimal, and each line is rounded once."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation, localcontext
from typing import Any, Literal

from .errors import Problem, ValidationError
from .event import shown

# ISO 4217: currencies whose minor unit is not a hundredth.
_MINOR_DIGITS: dict[str, int] = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3),
}

# No number is longer on either side of its point, whatever a meter read (a float ends at 308 and 324 digits):
# so sums and products of two are exact in a context of 1,000 digits.
_MAX_DIGITS = 400
_EXACT = Context(prec=1000)

# Every word of an explanation, "x" and the currency's code aside: what a translation of it must know.
WORDS = (
    "cent",
    "cents",
    "flat fee",
    "free",
    "minor unit of",
    "minor units of",
    "over",
    "package of",
    "packages of",
    "tier",
    "up to",
)


@dataclass(frozen=True, slots=True)
class Tier:
    """A range of quantities with a price of its own. It begins where the tier before it ends.

    It is checked by the `Price` that it becomes a part of.

    Attributes:
        up_to: Its end, in units: a quantity of exactly this is still in it. None for the last tier, which has no end.
        price_per_unit: In minor units (cents) per unit, within the same limits as the price's.
        flat_fee: In minor units (cents), once, if anything is charged in this tier.
    """

    up_to: Decimal | None
    price_per_unit: Decimal
    flat_fee: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Price:
    """A price above a free threshold: per unit, by tiers, or per package.

    - **Per unit**: `price_per_unit`.
    - **Graduated**: `tiers` and `mode="graduated"`. Each unit is charged at the price of the tier that it falls in.
    - **Volume**: `tiers` and `mode="volume"`. All units are charged at the price of the tier that the whole
      quantity falls in, so that a little more may cost less.
    - **Per package**: `price_per_unit` and `package_size`. A package that is begun is charged whole.

    Attributes:
        meter: The name of the meter whose quantity it prices.
        price_per_unit: In minor units (cents) per unit, or per package: at most 5 integer digits and 12 decimals,
            as the contract sets. Give a string or a Decimal; a float is refused. None if there are tiers.
        free_threshold: How many units are free in each billing period. They are taken off first: tiers and
            packages count what is left.
        currency: The ISO 4217 code.
        tiers: In the order of their ends; the last one has none.
        mode: How the tiers are charged; None if there are none.
        package_size: How many units a package holds; None to charge each unit.

    Raises:
        ValidationError: One of these limits is broken, or two of them do not go together.
    """

    meter: str
    price_per_unit: Decimal | None = None
    free_threshold: Decimal = Decimal(0)
    currency: str = "USD"
    _: KW_ONLY
    tiers: tuple[Tier, ...] = ()
    mode: Literal["graduated", "volume"] | None = None
    package_size: Decimal | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "free_threshold", _amount(self.free_threshold, "/free_threshold"))
        object.__setattr__(self, "tiers", _checked_tiers(self.tiers))
        if self.price_per_unit is not None:
            object.__setattr__(self, "price_per_unit", _unit_price(self.price_per_unit, "/price_per_unit"))
        if self.package_size is not None:
            object.__setattr__(self, "package_size", _amount(self.package_size, "/package_size"))
        if problems := _kind_problems(self):
            raise ValidationError(problems)
        if not re.fullmatch(r"[A-Z]{3}", self.currency):
            reason = f"{shown(self.currency)} is not an ISO 4217 code: write it like USD"
            raise ValidationError([Problem("/currency", reason)])

    def charge(self, consumed: Decimal | int) -> InvoiceLine:
        """What a quantity costs. Everything is added up exactly, then rounded half up, once.

        Args:
            consumed: What the meter read, in units.

        Raises:
            ValidationError: The quantity is negative, not finite, or a float.
        """
        quantity = _amount(consumed, "/consumed")
        with localcontext(_EXACT):
            chargeable = max(quantity - self.free_threshold, Decimal(0))
            exact = sum(
                (
                    units * tier.price_per_unit + (tier.flat_fee if units else 0)
                    for units, tier in _parts(self, chargeable)
                ),
                Decimal(0),
            )
            total = exact.quantize(Decimal(1), rounding=ROUND_HALF_UP)
        return InvoiceLine(self, quantity, chargeable, int(total))


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice.

    Attributes:
        price: The price that made it.
        consumed: The quantity that the meter read.
        chargeable: What of it is above the free threshold.
        total: The charge, in minor units (cents).
    """

    price: Price
    consumed: Decimal
    chargeable: Decimal
    total: int

    @property
    def explanation(self) -> str:
        """How the total came about: `2,500 - 1,000 free = 1,500 x 2 cents = 30.00 USD`.

        - Graduated: `1,000 x 5 cents + 1,500 x 2 cents = 80.00 USD`.
        - Volume: `2,500 x 2 cents = 50.00 USD (tier over 1,000)`.
        - Per package: `2,500 = 3 packages of 1,000 x 150 cents = 4.50 USD`.
        """
        price = self.price
        with localcontext(_EXACT):
            parts = _parts(price, self.chargeable)
        start = f"{self.consumed:,f} - {price.free_threshold:,f} free = " if price.free_threshold else ""
        if price.package_size:
            start += f"{self.chargeable:,f} = "
        elif start and len(parts) > 1:
            start += f"{self.chargeable:,f}: "
        terms = [_term(price, units, tier) for units, tier in parts]
        end = _range(price.tiers, parts[0][1]) if price.mode == "volume" else ""
        return f"{start}{' + '.join(terms)} = {money(self.total, price.currency)}{end}"


@dataclass(frozen=True, slots=True)
class Invoice:
    """What one customer owes for one billing period.

    Attributes:
        lines: One for each price.
        total: Their sum, in minor units (cents).
    """

    lines: tuple[InvoiceLine, ...]
    total: int


def invoice(prices: Sequence[Price], quantities: Mapping[str, Decimal]) -> Invoice:
    """The invoice for what the meters read.

    Args:
        prices: The prices, in the order of the lines; all in one currency.
        quantities: Each meter's quantity, by the meter's name; 0 for one that is not there.

    Raises:
        ValidationError: The prices are in more than one currency; a quantity is negative, not finite, or a float.
    """
    currencies = sorted({price.currency for price in prices})
    if len(currencies) > 1:
        raise ValidationError([Problem("/prices", f"more than one currency: {', '.join(currencies)}")])
    checked = {price.meter: _amount(quantities.get(price.meter, 0), f"/quantities/{price.meter}") for price in prices}
    lines = tuple(price.charge(checked[price.meter]) for price in prices)
    return Invoice(lines, sum(line.total for line in lines))


def money(minor: int, currency: str) -> str:
    """An amount in minor units as people write it: 3000 and USD give `30.00 USD`."""
    digits = _MINOR_DIGITS.get(currency, 2)
    return f"{Decimal(minor).scaleb(-digits, _EXACT):,.{digits}f} {currency}"


def decimal_of(value: Any) -> Decimal:
    """A decimal number of at least 0, given as a Decimal, an integer or a string.

    Raises:
        ValidationError: It is none, or too long.
    """
    return _amount(value, "")


def _parts(price: Price, chargeable: Decimal) -> list[tuple[Decimal, Tier]]:
    """What is charged at which tier's price: units, or packages. Where nothing is charged, 0 in the first tier."""
    if price.price_per_unit is not None:
        units = _packages(chargeable, price.package_size) if price.package_size else chargeable
        return [(units, Tier(None, price.price_per_unit))]
    ends = [tier.up_to for tier in price.tiers if tier.up_to is not None]
    if price.mode == "volume":
        return [(chargeable, price.tiers[bisect_left(ends, chargeable)])]
    starts = [Decimal(0), *ends]
    return [
        (min(chargeable, end) - start, tier)
        for start, end, tier in zip(starts, [*ends, chargeable], price.tiers, strict=True)
        if start < chargeable or start == 0
    ]


def _packages(units: Decimal, size: Decimal) -> Decimal:
    # Not by division, which may round an infinite fraction to a whole number.
    whole, rest = divmod(units, size)
    return whole + 1 if rest else whole


def _term(price: Price, units: Decimal, tier: Tier) -> str:
    counted = f"{units:,f}"
    if price.package_size:
        counted += f" {'package' if units == 1 else 'packages'} of {price.package_size:,f}"
    fee = f" + {_minor(tier.flat_fee, price.currency)} flat fee" if units and tier.flat_fee else ""
    return f"{counted} x {_minor(tier.price_per_unit, price.currency)}{fee}"


def _range(tiers: Sequence[Tier], tier: Tier) -> str:
    index = tiers.index(tier)
    start = tiers[index - 1].up_to if index else None
    ends = {"over": start, "up to": tier.up_to}
    words = "".join(f" {word} {end:,f}" for word, end in ends.items() if end is not None)
    return f" (tier{words})" if words else ""


def _minor(amount: Decimal, currency: str) -> str:
    if _MINOR_DIGITS.get(currency, 2) == 2:
        return f"{amount:,f} {'cent' if amount == 1 else 'cents'}"
    return f"{amount:,f} {'minor unit' if amount == 1 else 'minor units'} of {currency}"


def _kind_problems(price: Price) -> list[Problem]:
    """What does not go together in a price."""
    tiered, per_unit, size = bool(price.tiers), price.price_per_unit is not None, price.package_size
    rules = (
        (tiered and per_unit, "/price_per_unit", "each tier has its own: leave it out, or leave out the tiers"),
        (not tiered and not per_unit, "/price_per_unit", "missing: give it, or tiers"),
        (
            tiered and price.mode not in ("graduated", "volume"),
            "/mode",
            f"{shown(price.mode)} is no way to charge tiers: use graduated or volume",
        ),
        (not tiered and price.mode is not None, "/mode", "there are no tiers to charge: leave it out, or give tiers"),
        (tiered and size is not None, "/package_size", "tiers count units, not packages: leave out one or the other"),
        (size == 0, "/package_size", "a package of 0 units holds nothing: give more than 0, or leave it out"),
    )
    return [Problem(pointer, reason) for broken, pointer, reason in rules if broken]


def _checked_tiers(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    checked = tuple(_checked_tier(tier, f"/tiers/{index}") for index, tier in enumerate(tiers))
    start = Decimal(0)
    for index, tier in enumerate(checked):
        if reason := _end_fault(start, tier.up_to, last=index == len(checked) - 1):
            raise ValidationError([Problem(f"/tiers/{index}/up_to", reason)])
        start = tier.up_to or start
    return checked


def _checked_tier(tier: Tier, pointer: str) -> Tier:
    return Tier(
        None if tier.up_to is None else _amount(tier.up_to, f"{pointer}/up_to"),
        _unit_price(tier.price_per_unit, f"{pointer}/price_per_unit"),
        _amount(tier.flat_fee, f"{pointer}/flat_fee"),
    )


def _end_fault(start: Decimal, end: Decimal | None, *, last: bool) -> str | None:
    if last:
        return None if end is None else f"{end:,f} is the end of the last tier, which must have none: make it None"
    if end is None:
        return "only the last tier has no end: give the quantity that this one goes up to"
    return (
        None if end > start else f"{end:,f} is not above {start:,f}, where this tier begins: order tiers by their ends"
    )


def _unit_price(value: Any, pointer: str) -> Decimal:
    return _amount(value, pointer, integer_digits=5, decimals=12)


def _amount(value: Any, pointer: str, integer_digits: int = _MAX_DIGITS, decimals: int = _MAX_DIGITS) -> Decimal:
    if isinstance(value, float):
        reason = f"{value} is a float, which does not hold decimals exactly: write Decimal('{value}')"
        raise ValidationError([Problem(pointer, reason)])
    try:
        amount = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise ValidationError([Problem(pointer, f"{shown(value)} is not a decimal number")]) from None
    exponent = amount.as_tuple().exponent
    # The exponent of an infinity, or of what is not a number, is a letter.
    if not isinstance(exponent, int) or amount < 0:
        raise ValidationError([Problem(pointer, f"{amount} is not a finite number of at least 0")])
    if -exponent > decimals or (amount and amount.adjusted() >= integer_digits):
        reason = f"{amount} has more than {integer_digits} integer digits or {decimals} decimals"
        raise ValidationError([Problem(pointer, reason)])
    return amount.copy_abs()  # the sign of -0 is not for people
