"""Measures in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..core.delays import BOUNDS
from .measures import ALONE, Buckets, Crew, Measures
from .metrics import DELAYS, LABELLED, METRICS

__all__ = ["render"]

_LIMITS = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")


def render(measures: Measures, crew: Crew = ALONE) -> bytes:
    """Return measures in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Families(measures, crew))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, measures: Measures, crew: Crew) -> None:
        self._measures = measures
        self._crew = crew

    def collect(self) -> Iterable[Metric]:
        measures, crew = self._measures, self._crew
        for metric in METRICS:
            family = CounterMetricFamily if metric.counter else GaugeMetricFamily
            yield family(f"oncecast_{metric.name}", metric.text, value=measures.values.get(metric.name, 0))
        for labelled in LABELLED:
            family = CounterMetricFamily if labelled.counter else GaugeMetricFamily
            made = family(f"oncecast_{labelled.name}", labelled.text, labels=labelled.labels)
            found = dict.fromkeys(labelled.known, 0.0) | measures.labelled.get(labelled.name, {})
            for label, value in sorted(found.items()):
                made.add_metric(label.split(" ", len(labelled.labels) - 1), value)
            yield made
        for delay in DELAYS:
            buckets = measures.delays.get(delay.name, Buckets())
            yield HistogramMetricFamily(
                f"oncecast_{delay.name}",
                delay.text,
                buckets=list(zip(_LIMITS, accumulate(buckets.counts), strict=True)),
                sum_value=buckets.total,
            )
        yield GaugeMetricFamily("oncecast_workers", "Processes that serve.", value=crew.workers)
        yield CounterMetricFamily(
            "oncecast_worker_restarts", "Workers that ended unasked and were replaced.", value=crew.restarts
        )
        yield GaugeMetricFamily(
            "oncecast_workers_silent", "Workers that did not answer and are missing here.", value=crew.silent
        )
