"""Who pays for what is measured: told where it happens, and never an exception into the product's own call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import NamedTuple, TypeAlias

from ..blueprint import EventType
from ..errors import ConfigurationError, MeterprintError
from ..event import Event, MetadataValue, shown
from ..recorder import AsyncRecorder, Recorder

Customer: TypeAlias = str | Callable[[], str] | ContextVar[str]
Metadata: TypeAlias = Mapping[str, MetadataValue] | Callable[[], Mapping[str, MetadataValue]]

logger = logging.getLogger("meterprint")


class Caller(NamedTuple):
    """Who used the product.

    Attributes:
        customer_id: Who pays; empty if that is not known.
        metadata: What the event has beside what is measured.
    """

    customer_id: str
    metadata: Mapping[str, MetadataValue]


class Attribution:
    """Records the events of one kind, each for whoever used the product.

    Args:
        recorder: Takes the events.
        kind: What is measured.
        customer_id: Who pays: a value, or where it is when the product is used, a callable without arguments or a
            context variable. It must come from authentication, never from what a request claims.
        metadata: What the events have beside what is measured, which it never replaces; a callable is asked at each
            use.

    Raises:
        ConfigurationError: `customer_id` is none of these.
        ValidationError: An event may not have this metadata.
    """

    def __init__(
        self,
        recorder: Recorder | AsyncRecorder,
        kind: EventType,
        customer_id: Customer,
        metadata: Metadata | None = None,
    ) -> None:
        self.recorder = recorder
        self._kind = kind
        self._customer = checked_customer(customer_id)
        self._metadata = checked_metadata(kind, metadata or {})

    def caller(self) -> Caller:
        """Who uses the product now. Whatever fails is logged."""
        return Caller(who(self._customer), extra(self._metadata))

    def record(self, measured: Mapping[str, MetadataValue], caller: Caller, *, event_id: str | None = None) -> None:
        """Record an event. It never raises; without a customer, the event becomes a dead letter, which can be mended.

        Args:
            measured: What the event says of the use.
            caller: Whose it was.
            event_id: The idempotency key, where the use has a natural one.
        """
        if not caller.customer_id:
            logger.warning("%s: no customer is known: the event is a dead letter", self._kind.name)
        metadata = {**caller.metadata, **measured}
        try:
            self.recorder.record(self._kind.name, customer_id=caller.customer_id, metadata=metadata, event_id=event_id)
        except MeterprintError as error:
            logger.error("%s was not metered: %s", self._kind.name, error)  # noqa: TRY400  # its message says all
        except Exception:
            logger.exception("%s was not metered", self._kind.name)


def checked_customer(customer_id: Customer) -> Customer:
    """A customer as it may be given.

    Raises:
        ConfigurationError: It is neither a non-empty string, nor a callable, nor a context variable.
    """
    if (isinstance(customer_id, str) and customer_id.strip()) or isinstance(customer_id, ContextVar):
        return customer_id
    if callable(customer_id):
        return customer_id
    raise ConfigurationError(
        f"customer_id={shown(customer_id)}: give a non-empty string, a callable without arguments or a ContextVar"
    )


def checked_metadata(kind: EventType, metadata: Metadata) -> Metadata:
    """Metadata that an event of a kind may have beside what is measured.

    Raises:
        ValidationError: It may not.
    """
    if not isinstance(metadata, Mapping):
        return metadata
    Event("check", "check", kind.name, metadata={**metadata, **kind.sample()})
    return dict(metadata)


def who(customer: Customer) -> str:
    """Who pays now; empty if that cannot be told."""
    if isinstance(customer, str):
        return customer
    try:
        found = customer.get("") if isinstance(customer, ContextVar) else customer()
    except Exception:
        logger.exception("the customer could not be told")
        return ""
    return found if isinstance(found, str) else ""


def extra(metadata: Metadata) -> Mapping[str, MetadataValue]:
    """What an event has beside what is measured; nothing if that cannot be told."""
    if isinstance(metadata, Mapping):
        return metadata
    try:
        return dict(metadata())
    except Exception:
        logger.exception("the metadata could not be told")
        return {}


def both(first: Metadata, second: Metadata) -> Metadata:
    """Metadata of both; of a key that both have, the second's."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**first, **second}
    return lambda: {**_now(first), **_now(second)}


def _now(metadata: Metadata) -> Mapping[str, MetadataValue]:
    return metadata if isinstance(metadata, Mapping) else metadata()
