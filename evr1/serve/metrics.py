"""What Prometheus reads: counts, never what a request holds."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELD = ("rows_waiting", "rows_running", "slots_used", "prefix_bytes", "prefixes", "requests_open")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of a server."""

    def __init__(self, gauges: Callable[[], Mapping[str, float]]):
        """Takes what tells the worker's state."""
        self._registry = CollectorRegistry()
        self._registry.register(_Worker(gauges))
        self.requests = Counter(
            "evr1_requests", "Requests by their status.", ["status"], registry=self._registry
        )
        self.seconds = Histogram(
            "evr1_request_seconds",
            "From a request's first byte to its answer's last.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.first_seconds = Histogram(
            "evr1_first_token_seconds",
            "From a request's first byte to its first token.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.prompt_tokens = Counter(
            "evr1_prompt_tokens", "Tokens of prompts, shared or not.", registry=self._registry
        )

    def text(self) -> bytes:
        """Returns all of them in Prometheus' format."""
        return generate_latest(self._registry)


class _Worker(Collector):
    """The worker's state when it is asked for."""

    def __init__(self, gauges: Callable[[], Mapping[str, float]]):
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        for name, value in self._gauges().items():
            kind = GaugeMetricFamily if name in _HELD else CounterMetricFamily
            yield kind(f"evr1_{name}", f"{name.replace('_', ' ')} of the worker.", value=value)
