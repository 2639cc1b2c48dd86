"""Files of all images that are put together from a text for each of them; the texts may be made side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TextIO

from app.results.image_result import ImageResult, Results

# An image's name -> 0..1, the higher the sooner a person should look.
Priority = Callable[[str], float]


class Form(Protocol):
    """What a file consists of; it can be sent to another process.

    opening, closing: stand around all images. between: stands between two of them.
    """

    @property
    def opening(self) -> str: ...

    @property
    def between(self) -> str: ...

    @property
    def closing(self) -> str: ...

    def text(self, result: ImageResult, number: int, priority: float | None) -> tuple[str, int]:
        """An image's text, and how many of its objects the form cannot say. number: of the image, from 0."""
        ...


# An image's result, and its priority.
Rated = tuple[ImageResult, float | None]
# -> texts of one or more images each, in the same order, as `Form.text` gives them.
Make = Callable[[Form, Iterable[Rated]], Iterator[tuple[str, int]]]


def write(
    file: TextIO, form: Form, results: Results, priority: Priority | None = None, make: Make | None = None
) -> int:
    """Write the file; gives the number of objects left out. make: where the texts are made; None: here."""
    left_out = 0
    file.write(form.opening)
    rated = ((result, None if priority is None else priority(result.name)) for result in results)
    for number, (text, lacking) in enumerate((make or one_by_one)(form, rated)):
        file.write((form.between if number else "") + text)
        left_out += lacking
    file.write(form.closing)
    return left_out


def one_by_one(form: Form, rated: Iterable[Rated], first: int = 0) -> Iterator[tuple[str, int]]:
    """The texts, made here. first: the number of the first image."""
    for number, (result, priority) in enumerate(rated, start=first):
        yield form.text(result, number, priority)


def together(form: Form, rated: Iterable[Rated], first: int) -> tuple[str, int]:
    """The text of several images that follow each other."""
    texts, lacking = zip(*one_by_one(form, rated, first), strict=True)
    return form.between.join(texts), sum(lacking)
