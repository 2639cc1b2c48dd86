"""The figures of all processes of a service as one answer for Prometheus, told apart by the label `process`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "process"


def merged(texts: Mapping[str, bytes], accept: str = "") -> tuple[bytes, str]:
    """The metrics and their content type, in the form that an `Accept` header asks for.

    texts: what each process shows, in Prometheus's text form, by the name that its label gets.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_All(texts))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _All(Collector):
    def __init__(self, texts: Mapping[str, bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for process, text in self._texts.items():
            for family in text_string_to_metric_families(text.decode()):
                known = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.samples.append(sample._replace(labels={**sample.labels, LABEL: process}))
        return found.values()
