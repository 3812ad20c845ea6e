"""Who made the calls that a framework tells of twice: when they begin, and from elsewhere when they end."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .search import tokens_of
from .tap import Caller
from .usage import UNKNOWN, counters_in, read, warn
from .wrap import LLMMeter

_MOST = 10_000  # calls under way: one that a framework never ends is forgotten in time

logger = logging.getLogger("meterprint")


class Callers:
    """Records the answers to calls for those who made them.

    Args:
        meter: The meter.
    """

    def __init__(self, meter: LLMMeter) -> None:
        self._tap = meter.tap()
        self._calls: OrderedDict[object, tuple[Caller, int]] = OrderedDict()

    def begin(self, call: object, asked: int = 0) -> None:
        """Remember who makes a call, and how many characters it asks."""
        self._calls[call] = self._tap.caller(), asked
        if len(self._calls) > _MOST:
            self._calls.popitem(last=False)

    def forget(self, call: object) -> None:
        """A call brought nothing."""
        self._calls.pop(call, None)

    def end(
        self,
        call: object,
        answer: Mapping[str, Any],
        *,
        provider: str,
        operation: str = "chat",
        said: int = 0,
        is_whole: bool = True,
    ) -> None:
        """Record the answer to a call; it never raises.

        Args:
            call: What `begin` was told.
            answer: Its id, model and usage, under these names.
            provider: Who answered.
            operation: The operation.
            said: How many characters the answer has, to estimate it if it has no usage.
            is_whole: Whether the numbers are the provider's, of the whole answer.
        """
        try:
            caller, asked = self._calls.pop(call) if call in self._calls else (self._tap.caller(), 0)
            usage, faults = read(answer, provider=provider or UNKNOWN, operation=operation)
            if counters_in(answer) is None:
                usage = replace(usage, input_tokens=tokens_of(asked), output_tokens=tokens_of(said))
            warn(usage, faults if is_whole else [])
            self._tap.record(replace(usage, estimated=usage.estimated or not is_whole), *caller)
        except Exception:
            logger.exception("%s response %s was not metered", provider, answer.get("id"))
