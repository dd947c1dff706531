"""Prometheus metrics of a node. Names and labels are an interface: dashboards stand on them."""

from __future__ import annotations

from collections import Counter as Counting
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from connector.core.interface import Fault
from connector.metering.types import Reported

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Labels are bounded: methods, outcomes and terms of our own making, never a peer's words."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._labelled: dict[str, Gauge] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Gauge(
            "tds_build_info", "The program's version", ["version"], registry=self.registry
        ).labels(version).set(1)
        self._calls = Histogram(
            "tds_grpc_call_seconds",
            "gRPC calls answered, by method and outcome",
            ["method", "outcome"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._uses = Counter(
            "tds_uses_total", "Uses at the gate, by outcome", ["outcome"], registry=self.registry
        )
        self._refusals = Counter(
            "tds_refusals_total", "Refused uses, by failing term", ["term"], registry=self.registry
        )
        self._amounts = Counter(
            "tds_quantity_total",
            "What uses consumed, by quantity",
            ["quantity"],
            registry=self.registry,
        )

        self._records = Counter(
            "tds_reported_records_total",
            "Use records of reporters, by what became of them",
            ["outcome"],
            registry=self.registry,
        )
        self._reported_calls = Counter(
            "tds_reported_calls_total", "Calls in reported records", registry=self.registry
        )

    def core(self, name: str, detail: str) -> None:
        """Which metering core runs."""
        Gauge(
            "tds_core_info", "The metering core", ["core", "detail"], registry=self.registry
        ).labels(name, detail).set(1)

    def call(self, method: str, outcome: str, seconds: float) -> None:
        self._calls.labels(method.rpartition(".")[2], outcome).observe(seconds)

    def use(self, outcome: str, terms: tuple[str, ...], quantities: dict[str, int]) -> None:
        self._uses.labels(outcome).inc()
        for term in terms:
            self._refusals.labels(term).inc()
        for name, amount in quantities.items():
            self._amounts.labels(name).inc(amount)

    def report(self, reported: Reported) -> None:
        self._records.labels("accepted").inc(reported.count)
        self._reported_calls.inc(reported.calls)
        for fault, number in Counting(fault for _, fault in reported.refused).items():
            self._records.labels(Fault(fault).name.lower()).inc(number)

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """A value that is read when it is asked for."""
        Gauge(name, help, registry=self.registry).set_function(read)

    def gauge_of(
        self, name: str, help: str, label: str, value: str, read: Callable[[], float]
    ) -> None:
        """As ``gauge``, one for each value of a label."""
        if name not in self._labelled:
            self._labelled[name] = Gauge(name, help, [label], registry=self.registry)
        self._labelled[name].labels(value).set_function(read)
