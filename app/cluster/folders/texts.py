"""The texts that files of all images consist of, made by a cluster's processes; see `app.results.whole_file`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import ray

from app.results.whole_file import Form, Rated, together

# Of one call: enough that sending them costs little beside making their texts, and few megabytes of text.
_IMAGES_AT_ONCE = 32
_CALLS_OF_A_CPU = 2  # begun: while one text is fetched, the next is made


def make(form: Form, rated: Iterable[Rated]) -> Iterator[tuple[str, int]]:
    """A `whole_file.Make`. What is made ahead is a few texts for each of the cluster's processors, never all."""
    most = max(2, int(_CALLS_OF_A_CPU * ray.cluster_resources().get("CPU", 1)))
    one = ray.remote(num_cpus=1)(together)
    sent = ray.put(form)
    begun: deque[ray.ObjectRef] = deque()
    images, first = iter(rated), 0
    while part := list(islice(images, _IMAGES_AT_ONCE)):
        begun.append(one.remote(sent, part, first))
        first += len(part)
        if len(begun) >= most:
            yield ray.get(begun.popleft())
    while begun:
        yield ray.get(begun.popleft())
