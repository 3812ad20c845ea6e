"""Metering the client of a provider's SDK."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

from ...errors import ConfigurationError
from ...event import Event, MetadataValue, shown
from ...recorder import AsyncRecorder, Recorder
from .adapters import adapter_of
from .definition import USAGE
from .tap import Customer, Metadata, Tap
from .transport import finish_open
from .usage import usage_of

T = TypeVar("T")

logger = logging.getLogger("meterprint")


class LLMMeter:
    """Records one `llm.usage` event for each answer that the clients which it wraps get from a model.

    It never changes, delays or fails a call: what goes wrong in metering is logged. An answer whose end did not
    come, and one without usage, is metered with what is known of it, and marked `estimated`: when it is closed, when
    Python collects it, or before the recorder ends. Without a customer, the event becomes a dead letter.

    Args:
        recorder: Takes the events.
        customer_id: Who pays: a value, or where it is when a call is made, a callable without arguments or a context
            variable. It must come from authentication, never from what the request claims.
        metadata: What the events have beside what is measured, which it never replaces; a callable is asked at each
            call.

    Raises:
        ConfigurationError: `customer_id` is none of these.
        ValidationError: An event may not have this metadata.
    """

    def __init__(
        self,
        recorder: Recorder | AsyncRecorder,
        *,
        customer_id: Customer | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        self._recorder = recorder
        self._customer = None if customer_id is None else _checked_customer(customer_id)
        self._metadata = _checked_metadata(metadata or {})
        recorder.on_end(partial(finish_open, recorder))

    def wrap(
        self,
        client: T,
        *,
        customer_id: Customer | None = None,
        metadata: Metadata | None = None,
        provider: str = "",
    ) -> T:
        """A client like the given one, of the same type, whose calls are metered. The given one stays as it is.

        Both use the same connections: closing one closes both. Wrapping what is wrapped replaces what was said
        then.

        Args:
            client: The client of openai, anthropic, groq, google-genai or mistralai, synchronous or asynchronous.
            customer_id: Who pays; by default as the meter has it.
            metadata: As the meter has it, and beside that.
            provider: Who answers, for the events; by default by the address, else by the SDK.

        Raises:
            ConfigurationError: The client cannot be metered; there is no `customer_id`.
            ValidationError: An event may not have this metadata.
        """
        customer = self._customer if customer_id is None else _checked_customer(customer_id)
        if customer is None:
            raise ConfigurationError("no customer_id: give it to LLMMeter or to wrap, as a value or a callable")
        extra = self._metadata if metadata is None else _checked_metadata(_both(self._metadata, metadata))
        adapt, sdk = adapter_of(client)
        wrapped: T = adapt(client, Tap(self._recorder, customer, extra, provider, sdk))
        return wrapped

    def record(
        self,
        response: object,
        *,
        customer_id: str | None = None,
        metadata: Mapping[str, MetadataValue] | None = None,
        provider: str = "",
    ) -> None:
        """Record the event of an answer that came by other ways, as `wrap` does: it never raises.

        Args:
            response: The answer, as `usage_of` takes it.
            customer_id: Who pays; by default as the meter has it.
            metadata: As the meter has it, and beside that.
            provider: Who answers, where the answer does not say so.
        """
        try:
            tap = self.tap(customer_id, metadata)
            tap.record(usage_of(response, provider=provider), *tap.caller())
        except Exception:
            logger.exception("an answer was not metered")

    def tap(self, customer_id: str | None = None, metadata: Mapping[str, MetadataValue] | None = None) -> Tap:
        """What records the answers that do not come through a wrapped client, as the callbacks of frameworks do."""
        return Tap(self._recorder, customer_id or self._customer or "", _both(self._metadata, metadata or {}))


def _checked_customer(customer_id: Customer) -> Customer:
    if (isinstance(customer_id, str) and customer_id.strip()) or isinstance(customer_id, ContextVar):
        return customer_id
    if callable(customer_id):
        return customer_id
    raise ConfigurationError(
        f"customer_id={shown(customer_id)}: give a non-empty string, a callable without arguments or a ContextVar"
    )


def _checked_metadata(metadata: Metadata) -> Metadata:
    """Metadata that an event may have beside what is measured."""
    if not isinstance(metadata, Mapping):
        return metadata
    Event("check", "check", USAGE.name, metadata={**metadata, **USAGE.sample()})
    return dict(metadata)


def _both(first: Metadata, second: Metadata) -> Metadata:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**first, **second}
    return lambda: {**_now(first), **_now(second)}


def _now(metadata: Metadata) -> Mapping[str, MetadataValue]:
    return metadata if isinstance(metadata, Mapping) else metadata()
