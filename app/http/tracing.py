"""OpenTelemetry: a span for each request with the stages of its work as children, sent by OTLP over HTTP.

An extra, `pip install box2mask[otel]`. Where to and how is OpenTelemetry's own business: its SDK reads its `OTEL_*`.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from app.settings import Settings, SettingsError
from app.timings import Timings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# Probes and scrapes: a trace of each would bury the others.
_UNTRACED = (r"^[a-z]+://[^/]+/(\?.*)?$", r"^[a-z]+://[^/]+/(health/|metrics\b)")


class Tracing:
    """Makes spans and sends them in the background; what cannot be sent is dropped, and no request waits for it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("box2mask", version("box2mask"))

    @classmethod
    def of(cls, settings: Settings) -> Tracing | None:
        """As the settings have it; None where it is off. Raises SettingsError where the extra is not installed."""
        if not settings.traces:
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            cause = "BOX2MASK_OTEL" if settings.otel else "OTEL_EXPORTER_OTLP_ENDPOINT"
            raise SettingsError(
                f"{cause} asks for OpenTelemetry, and {error.name} is not installed: "
                "`pip install 'box2mask[otel]'`, or BOX2MASK_OTEL=false"
            ) from error
        own = Resource.create({"service.name": "box2mask", "service.version": version("box2mask")})
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before.
        provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application with a span around each request, which is a child of the `traceparent` that came."""
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(app, excluded_urls=_UNTRACED, tracer_provider=self._provider)

    def add_stages(self, timings: Timings) -> dict[str, str]:
        """Add the stages as children of the request's span, which must not have ended. Returns its `trace_id`, if any.

        They are told afterwards, because what runs in batches runs for several requests at once.
        """
        from opentelemetry import trace

        span = trace.get_current_span()
        if not span.get_span_context().is_valid:
            return {}
        if span.is_recording():
            clock = time.time() - time.perf_counter()
            for stage, stretches in timings.stretches().items():
                for began, ended in stretches:
                    child = self._tracer.start_span(stage, start_time=int(1e9 * (clock + began)))
                    child.end(end_time=int(1e9 * (clock + ended)))
        return {"trace_id": f"{span.get_span_context().trace_id:032x}"}

    def close(self) -> None:
        """Send what is left. Takes as long as OTEL_BSP_EXPORT_TIMEOUT allows where nobody takes it."""
        self._provider.shutdown()
