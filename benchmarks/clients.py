"""Clients for usage events as others make them, behind one interface, for the comparisons."""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol

from meterprint import MeteringClient, Recorder


class Client(Protocol):
    """One vendor's client, with the vendor's defaults.

    Attributes:
        package: What it is called on PyPI.
        defaults: What the vendor sets: how much it holds and sends at once, when, and how often it tries again.
        holds: How many events it holds before it drops some; None if the caller waits instead, or the disk takes them.
        synchronous: Whether each record is a request that the caller waits for.
        poison: The number of the event that carries `poison`, which the sink refuses in one of its modes.
        own_ids: Whether events get ids from their numbers; else, those that the client makes.
    """

    package: ClassVar[str]
    defaults: ClassVar[str]
    holds: ClassVar[int | None] = None
    synchronous: ClassVar[bool] = False
    poison: ClassVar[int | None] = None
    own_ids: bool = True

    def start(self, url: str) -> None:
        """Make the vendor's client, pointed at the sink."""

    def record(self, number: int) -> None:
        """Hand over one event: what is timed."""

    def flush(self) -> None:
        """Send what it holds, and wait for that: for those of which `holds` is a number."""
        return  # else it were abstract

    def finish(self) -> None:
        """Flush and shut down, as the vendor documents it."""


def metadata(number: int, poison: int | None) -> dict[str, Any]:
    """The pairs of one event, a dictionary of its own: vendors add to it."""
    pairs: dict[str, Any] = {
        "endpoint": "/v1/orders/{order_id}",
        "method": "GET",
        "status_code": 200,
        "duration_ms": 12.5,
        "request_bytes": 0,
        "response_bytes": 2048,
    }
    if number == poison:
        pairs["poison"] = True
    return pairs


def texts(number: int, poison: int | None) -> dict[str, str]:
    """The same pairs for a vendor that takes only text."""
    pairs = {
        "endpoint": "/v1/orders/{order_id}",
        "method": "GET",
        "status_code": "200",
        "duration_ms": "12.5",
        "request_bytes": "0",
        "response_bytes": "2048",
    }
    if number == poison:
        pairs["poison"] = "true"
    return pairs


class _Amberflo(Client):
    package = "amberflo-metering-python"
    defaults = "holds 100,000; 2 threads send 100 at once, after 0.5 s; 6 retries within 2.7 min; no timeout"
    holds = 100_000

    def start(self, url: str) -> None:
        self._client: Any = import_module("metering.ingest").create_ingest_client(api_key="benchmark")
        for consumer in self._client.consumers:
            consumer.backend.client.root_url = url  # there is no option for it

    def record(self, number: int) -> None:
        self._client.meter(
            meter_api_name="api.request",
            meter_value=1,
            meter_time_in_millis=int(time.time() * 1000),
            customer_id=f"cus_{number % 100}",
            dimensions=texts(number, self.poison),
            unique_id=f"e{number}" if self.own_ids else None,
        )

    def flush(self) -> None:
        self._client.flush()

    def finish(self) -> None:
        self._client.shutdown()


class _Lago(Client):
    package = "lago-agent-sdk"
    defaults = "holds 10,000, then drops the oldest; sends 100 at once, after 1 s; retries for as long as it runs"
    holds = 10_000

    def start(self, url: str) -> None:
        lago: Any = import_module("lago_agent_sdk")
        # It meters language models: their input tokens stand for the event, under the event's name.
        config = lago.LagoConfig(metric_codes={"input": "api.request"})
        self._client: Any = lago.LagoSDK("benchmark", api_url=url + "/api/v1", config=config)
        self._usage: Any = lago.CanonicalUsage

    def record(self, number: int) -> None:
        self._client.emit(
            self._usage(input=1),
            subscription=f"cus_{number % 100}",
            dimensions=metadata(number, self.poison),
            event_id=f"e{number}" if self.own_ids else None,
        )

    def flush(self) -> None:
        self._client.flush()

    def finish(self) -> None:
        self._client.flush()
        self._client.shutdown()


class _Meterprint(Client):
    package = "meterprint"
    defaults = (
        "holds 100,000, then waits 0.1 s; sends 1,000 at once, 4 requests, after 1 s; retries for as long as it runs"
    )

    def start(self, url: str) -> None:
        self._recorder = self._made(MeteringClient(url, "bench", timeout=5.0))

    def _made(self, client: MeteringClient) -> Recorder:
        return Recorder(client)

    def record(self, number: int) -> None:
        self._recorder.record(
            "api.request",
            customer_id=f"cus_{number % 100}",
            metadata=metadata(number, self.poison),
            event_id=f"e{number}" if self.own_ids else None,
        )

    def finish(self) -> None:
        self._recorder.close()


class _MeterprintSpool(_Meterprint):
    defaults = "each event is on disk before record returns; else as without a spool"

    def _made(self, client: MeteringClient) -> Recorder:
        self._folder = TemporaryDirectory(prefix="spool-", ignore_cleanup_errors=True)  # removed at the exit
        return Recorder(client, spool=self._folder.name)


class _OpenTelemetry(Client):
    package = "opentelemetry-sdk"
    defaults = "holds 2,048, then drops the oldest; sends 512 at once, after 5 s; retries within 10 s"
    holds = 2_048

    def start(self, url: str) -> None:
        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
        processor = import_module("opentelemetry.sdk.trace.export").BatchSpanProcessor
        self._provider: Any = import_module("opentelemetry.sdk.trace").TracerProvider()
        self._provider.add_span_processor(processor(exporter(endpoint=url + "/v1/traces")))
        self._tracer: Any = self._provider.get_tracer("benchmark")

    def record(self, number: int) -> None:
        attributes = {"customer_id": f"cus_{number % 100}", **metadata(number, self.poison)}
        if self.own_ids:
            attributes["event_id"] = f"e{number}"  # a span has no idempotency key
        self._tracer.start_span("api.request", attributes=attributes).end()

    def flush(self) -> None:
        self._provider.force_flush()

    def finish(self) -> None:
        self._provider.force_flush()
        self._provider.shutdown()


class _Polar(Client):
    package = "polar-sdk"
    defaults = "holds nothing: each call is a request that the caller waits for; no retries; times out after 5 s"
    synchronous = True

    def start(self, url: str) -> None:
        self._stack = ExitStack()
        polar = import_module("polar.v2026_10").Polar
        self._client: Any = self._stack.enter_context(polar("benchmark", base_url=url))

    def record(self, number: int) -> None:
        event = {
            "name": "api.request",
            "external_customer_id": f"cus_{number % 100}",
            "metadata": metadata(number, self.poison),
        }
        if self.own_ids:
            event["external_id"] = f"e{number}"
        self._client.events.ingest(events=[event])

    def finish(self) -> None:
        self._stack.close()


class _Posthog(Client):
    package = "posthog"
    defaults = "holds 10,000, then drops the newest; sends 100 at once, after 5 s; 3 retries within 7 s"
    holds = 10_000

    def start(self, url: str) -> None:
        self._client: Any = import_module("posthog").Posthog("benchmark", host=url)

    def record(self, number: int) -> None:
        self._client.capture(
            "api.request",
            distinct_id=f"cus_{number % 100}",
            properties=metadata(number, self.poison),
            # It takes no other ids than UUIDs.
            uuid=f"00000000-0000-0000-0000-{number:012x}" if self.own_ids else None,
        )

    def flush(self) -> None:
        self._client.flush()

    def finish(self) -> None:
        self._client.shutdown()


class _Segment(Client):
    package = "segment-analytics-python"
    defaults = "holds 10,000, then drops the newest; sends 100 at once, after 0.5 s; 10 retries within 3 min"
    holds = 10_000

    def start(self, url: str) -> None:
        self._client: Any = import_module("segment.analytics.client").Client("benchmark", host=url)

    def record(self, number: int) -> None:
        self._client.track(
            user_id=f"cus_{number % 100}",
            event="api.request",
            properties=metadata(number, self.poison),
            message_id=f"e{number}" if self.own_ids else None,
        )

    def flush(self) -> None:
        self._client.flush()

    def finish(self) -> None:
        self._client.shutdown()


CLIENTS: dict[str, type[Client]] = {
    "amberflo": _Amberflo,
    "lago": _Lago,
    "meterprint": _Meterprint,
    "meterprint, spool": _MeterprintSpool,
    "opentelemetry": _OpenTelemetry,
    "polar": _Polar,
    "posthog": _Posthog,
    "segment": _Segment,
}


def version_of(name: str) -> str:
    """The version of a client's package that is installed."""
    return version(CLIENTS[name].package)
