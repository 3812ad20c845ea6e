"""OpenTelemetry metrics: what an application with a reader sees of its recorders."""

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from meterprint import Event, Recorder
from meterprint.testing import MeteringAPI

READER = InMemoryMetricReader()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    metrics.set_meter_provider(MeterProvider([READER], shutdown_on_exit=False))


def read() -> dict[str, int | float]:
    data = READER.get_metrics_data()
    scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
    points = {metric.name: next(iter(metric.data.data_points)) for scope in scopes for metric in scope.metrics}
    return {name: point.value for name, point in points.items() if isinstance(point, NumberDataPoint)}


def test_the_stats_are_metrics(metering_api: MeteringAPI) -> None:
    with Recorder.from_env() as recorder:
        before = read()
        for number in (1, 2, 2):
            recorder.record(Event(f"e{number}", "cus_ada", "api.request"))
        assert recorder.flush()
        after = read()
        change = {name: after[name] - before[name] for name in after}
    assert change["meterprint.events.recorded"] == 3
    assert change["meterprint.events.delivered"] == 2
    assert change["meterprint.events.duplicates"] == 1
    assert change["meterprint.events.dead"] == 0
    assert set(after) == {
        *(
            f"meterprint.events.{name}"
            for name in ("recorded", "delivered", "duplicates", "retried", "dead", "dropped")
        ),
        "meterprint.events.buffered",
        "meterprint.oldest_age",
    }
