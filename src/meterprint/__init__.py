"""Executable blueprints for usage-based billing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .client import AsyncMeteringClient, IngestResult, MeteringClient
from .errors import APIError, ConfigurationError, MeterprintError, Problem, UnreachableError, ValidationError
from .event import Event
from .intake import RecorderStats
from .recorder import AsyncRecorder, Recorder
from .spool import DeadLetter

if TYPE_CHECKING:
    from .blueprint import Blueprint, EventType, Field, Sample
    from .meter import Aggregation, Condition, Filter, Meter
    from .pricing import Invoice, InvoiceLine, Price, Tier, invoice
    from .rollup import Rollup

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
    "Tier",
    "UnreachableError",
    "ValidationError",
    "invoice",
]

# What recording does not need is loaded when it is first named: an application pays for what it uses.
_MODULES = {
    "blueprint": ("Blueprint", "EventType", "Field", "Sample"),
    "meter": ("Aggregation", "Condition", "Filter", "Meter"),
    "pricing": ("Invoice", "InvoiceLine", "Price", "Tier", "invoice"),
    "rollup": ("Rollup",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            globals()[name] = getattr(import_module(f".{module}", __name__), name)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
