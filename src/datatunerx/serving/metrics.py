"""What a scraper of Prometheus' text format is told."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from datatunerx.serving.answers import Reply
from datatunerx.serving.engine import Engine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counted per model that is served; of others only that they were asked for."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        on: dict[str, Any] = {"registry": self._registry, "namespace": "datatunerx", "subsystem": "serving"}
        self._requests = Counter("requests", "Requests that ended", ["model", "status"], **on)
        self._prompt = Counter("prompt_tokens", "Tokens of prompts", ["model"], **on)
        self._made = Counter("completion_tokens", "Tokens of answers", ["model"], **on)
        self._first = Histogram(
            "first_token_seconds", "From the request to its first token", ["model"], buckets=_SECONDS, **on
        )
        self._took = Histogram(
            "request_seconds", "From the request to its end", ["model"], buckets=_SECONDS, **on
        )
        for name, help, read in (
            ("requests_in_hand", "Requests being answered or waiting", lambda: engine.load.requests),
            ("rows", "Answers being generated", lambda: engine.load.rows),
            ("waiting", "Answers that wait for room", lambda: engine.load.waiting),
        ):
            Gauge(name, help, **on).set_function(read)

    def ended(self, model: str, status: int, reply: Reply | None = None) -> None:
        """A request for this model (empty: none that is served) ended; `reply` if it was answered."""
        self._requests.labels(model, str(status)).inc()
        if reply is None:
            return
        request = reply.request
        self._prompt.labels(model).inc(reply.prompt_tokens)
        self._made.labels(model).inc(request.tokens)
        if request.first is not None and request.ended is not None:
            self._first.labels(model).observe(request.first - request.asked)
            self._took.labels(model).observe(request.ended - request.asked)

    def text(self) -> bytes:
        return generate_latest(self._registry)
