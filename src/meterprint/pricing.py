"""Prices: what a quantity costs. Money is Decimal, and each line is rounded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any

from .errors import Problem, ValidationError
from .event import shown

# ISO 4217: currencies whose minor unit is not a hundredth.
_MINOR_DIGITS: dict[str, int] = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3),
}


@dataclass(frozen=True, slots=True)
class Price:
    """A price per unit above a free threshold.

    Attributes:
        meter: The name of the meter whose quantity it prices.
        price_per_unit: In minor units (cents) per unit: at most 5 integer digits and 12 decimals, as
            the contract sets. Give a string or a Decimal; a float is refused.
        free_threshold: How many units are free in each billing period.
        currency: The ISO 4217 code.

    Raises:
        ValidationError: One of these limits is broken.
    """

    meter: str
    price_per_unit: Decimal
    free_threshold: Decimal = Decimal(0)
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("price_per_unit", "free_threshold"):
            object.__setattr__(self, name, _amount(getattr(self, name), f"/{name}"))
        digits, exponent = self.price_per_unit.as_tuple().digits, self.price_per_unit.as_tuple().exponent
        if not isinstance(exponent, int) or -exponent > 12 or len(digits) + exponent > 5:
            reason = f"{self.price_per_unit} has more than 5 integer digits or 12 decimals"
            raise ValidationError([Problem("/price_per_unit", reason)])
        if not (len(self.currency) == 3 and self.currency.isascii() and self.currency.isupper()):
            reason = f"{shown(self.currency)} is not an ISO 4217 code: write it like USD"
            raise ValidationError([Problem("/currency", reason)])

    def charge(self, consumed: Decimal | int) -> InvoiceLine:
        """What a quantity costs: `max(consumed - free_threshold, 0) * price_per_unit`, rounded half up, once."""
        with localcontext(prec=100):
            chargeable = max(Decimal(consumed) - self.free_threshold, Decimal(0))
            total = (chargeable * self.price_per_unit).quantize(Decimal(1), rounding=ROUND_HALF_UP)
        return InvoiceLine(self, Decimal(consumed), chargeable, int(total))


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
        """How the total came about: `2,500 - 1,000 free = 1,500 x 2 cents = 30.00 USD`."""
        price = self.price
        free = f" - {price.free_threshold:,f} free = {self.chargeable:,f}" if price.free_threshold else ""
        plural = "cent" if price.price_per_unit == 1 else "cents"
        unit = plural if _MINOR_DIGITS.get(price.currency, 2) == 2 else f"minor units of {price.currency}"
        return f"{self.consumed:,f}{free} x {price.price_per_unit:f} {unit} = {money(self.total, price.currency)}"


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
        ValidationError: The prices are in more than one currency.
    """
    currencies = sorted({price.currency for price in prices})
    if len(currencies) > 1:
        raise ValidationError([Problem("/prices", f"more than one currency: {', '.join(currencies)}")])
    lines = tuple(price.charge(quantities.get(price.meter, Decimal(0))) for price in prices)
    return Invoice(lines, sum(line.total for line in lines))


def money(minor: int, currency: str) -> str:
    """An amount in minor units as people write it: 3000 and USD give `30.00 USD`."""
    digits = _MINOR_DIGITS.get(currency, 2)
    return f"{Decimal(minor).scaleb(-digits):,.{digits}f} {currency}"


def _amount(value: Any, pointer: str) -> Decimal:
    if isinstance(value, float):
        reason = f"{value} is a float, which does not hold money exactly: write Decimal('{value}')"
        raise ValidationError([Problem(pointer, reason)])
    try:
        amount = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise ValidationError([Problem(pointer, f"{shown(value)} is not a decimal number")]) from None
    if not amount.is_finite() or amount < 0:
        raise ValidationError([Problem(pointer, f"{amount} is not a finite number of at least 0")])
    return amount
