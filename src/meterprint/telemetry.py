"""OpenTelemetry metrics of all recorders of the process, where the application has OpenTelemetry installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol
from weakref import WeakSet

# Names by the semantic conventions' rules: dotted, no unit in the name, `{event}` as an annotated count.
_COUNTERS = {
    "recorded": "Events taken",
    "delivered": "Events that the metering API stored",
    "duplicates": "Events that the metering API had already",
    "retried": "Events in tries that failed",
    "dead": "Dead letters",
    "dropped": "Events that the full buffer did not take",
}


class Observed(Protocol):
    """What has `stats`."""

    @property
    def stats(self) -> Any:
        """The numbers."""


_observed: WeakSet[Observed] = WeakSet()


def observe(recorder: Observed) -> None:
    """Report the stats of a recorder from now on; without OpenTelemetry, nothing."""
    if not _observed:
        _create_instruments()
    _observed.add(recorder)


def _create_instruments() -> None:
    try:
        from opentelemetry import metrics
    except ImportError:
        return
    meter = metrics.get_meter("meterprint")
    if meter in _meters:
        return
    _meters.append(meter)

    def reader(name: str, fold: Any) -> Any:
        def read(options: Any) -> Iterable[Any]:
            values = [getattr(recorder.stats, name) for recorder in list(_observed)]
            return [metrics.Observation(fold(values))] if values else []

        return read

    for name, meaning in _COUNTERS.items():
        meter.create_observable_counter(
            f"meterprint.events.{name}", [reader(name, sum)], unit="{event}", description=meaning
        )
    meter.create_observable_up_down_counter(
        "meterprint.events.buffered", [reader("buffered", sum)], unit="{event}", description="Events that wait"
    )
    meter.create_observable_gauge(
        "meterprint.oldest_age", [reader("oldest_age", max)], unit="s", description="Age of the oldest that waits"
    )


_meters: list[Any] = []
