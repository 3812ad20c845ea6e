"""Executable blueprints for usage-based billing."""

from .blueprint import Blueprint, EventType, Field, Sample
from .client import AsyncMeteringClient, IngestResult, MeteringClient
from .errors import APIError, ConfigurationError, MeterprintError, Problem, UnreachableError, ValidationError
from .event import Event
from .intake import RecorderStats
from .meter import Aggregation, Condition, Filter, Meter
from .pricing import Invoice, InvoiceLine, Price, invoice
from .recorder import AsyncRecorder, Recorder
from .rollup import Rollup
from .spool import DeadLetter

__all__ = [
    "APIError",
    "Aggregation",
    "AsyncMeteringClient",
    "AsyncRecorder",
    "Blueprint",
    "Condition",
    "ConfigurationError",
    "DeadLetter",
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
    "Recorder",
    "RecorderStats",
    "Rollup",
    "Sample",
    "UnreachableError",
    "ValidationError",
    "invoice",
]
