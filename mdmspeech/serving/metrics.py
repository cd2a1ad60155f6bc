"""What the server counts and times, as Prometheus reads it at /metrics."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from mdmspeech.serving.engine import Engine

THRESHOLDS_MS = (100, 500)  # a player that stalls for less in all plays on, as people hear it
_SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 5)


class Metrics:
    """One for each engine; a request or a response of a session is told of when it has ended."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self._gauge(
            "num_requests_running", "Requests and conversations that have a place"
        ).set_function(lambda: engine.running)
        self._gauge("num_requests_waiting", "Requests that wait for a place").set_function(
            lambda: engine.waiting
        )
        self._gauge("sessions_active", "Conversations that are open").set_function(
            lambda: engine.sessions
        )
        self._latency = self._histogram("e2e_request_latency_s", "A request or response, whole")
        self._first = self._histogram("audio_ttfp_s", "Until the first samples")
        self._duration = self._histogram("audio_duration_s", "Of the speech of one answer")
        self._rtf = self._histogram("audio_rtf", "Time to make speech, by its duration", _SHARES)
        self._underrun = self._histogram(
            "audio_underrun_s", "That a player has stalled, per answer"
        )
        self._continuous = self._counter(
            "audio_continuity_ok", "Answers with less stalling than this", "threshold_ms"
        )
        self._success = self._counter(
            "requests_success", "Requests and responses that ended well", "finished_reason"
        )
        self._cancels = self._counter("cancels", "That were cancelled, or whose client has gone")

    def ended(
        self,
        reason: str,
        latency_s: float,
        *,
        audio_s: float = 0.0,
        first_audio_s: float | None = None,
        underrun_s: float = 0.0,
    ) -> None:
        """A request, or a response of a session, is over.

        Args:
          reason: "completed", "cancelled", "turn_detected" or "error". latency_s: from the request
            (or the end of the question) to its end. audio_s: of speech that was made.
            first_audio_s: until its first samples. underrun_s: that a player would have stalled.
        """
        if reason in ("cancelled", "turn_detected"):
            self._cancels.inc()
        elif reason != "error":
            self._success.labels(reason).inc()
        self._latency.observe(latency_s)
        if first_audio_s is None or not audio_s:
            return
        self._first.observe(first_audio_s)
        self._duration.observe(audio_s)
        self._rtf.observe(latency_s / audio_s)
        self._underrun.observe(underrun_s)
        for threshold in THRESHOLDS_MS:
            if underrun_s * 1000 < threshold:
                self._continuous.labels(str(threshold)).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(f"mdmspeech_{name}", told, registry=self.registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"mdmspeech_{name}", told, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"mdmspeech_{name}", told, labels, registry=self.registry)
