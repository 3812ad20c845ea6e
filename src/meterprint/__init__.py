"""Executable blueprints for usage-based billing."""

from .blueprint import Blueprint, EventType, Field, Sample
from .client import AsyncMeteringClient, IngestResult, MeteringClient
from .errors import APIError, ConfigurationError, MeterprintError, Problem, UnreachableError, ValidationError
from .event import Event
from .meter import Aggregation, Condition, Filter, Meter
from .pricing import Invoice, InvoiceLine, Price, invoice
from .recorder import AsyncRecorder

__all__ = [
    "APIError",
    "Aggregation",
    "AsyncMeteringClient",
    "AsyncRecorder",
    "Blueprint",
    "Condition",
    "ConfigurationError",
    "Event",
    "EventType",
    "Field",
    "Filter",
    "IngestResult",
    "Invoice",
    "InvoiceLine",
    "Meter",
    "MeteringClient",
    "MeterprintError",
    "Price",
    "Problem",
    "Sample",
    "UnreachableError",
    "ValidationError",
    "invoice",
]
