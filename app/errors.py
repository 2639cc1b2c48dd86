"""The service's errors and the HTTP status of each. Whatever else is raised is a fault of the server's: a 500.

ServiceError            500  something failed that the client could not have helped
├── BadRequest          400  the request is wrong; says which row and column
├── NotFound            404  no such route, or a model that this service does not serve
├── MethodNotAllowed    405  the route exists, not for this method
├── PayloadTooLarge     413  the body is over the limit
├── TooManyRequests     429  as many are in work or waiting as may be; try again soon
└── Unavailable         503  this service cannot answer now: it is starting or stopping
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """An error whose `message` may be shown to the client, answered with `status`."""

    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(ServiceError):
    """The client's mistake, with the row (counted from 0) and the column it is in, where they are known.

    `message` names the place too: "row 3, input_boxes: expected (num_boxes, 4), got (2, 3)".
    """

    status = 400

    def __init__(self, message: str, *, row: int | None = None, column: str | None = None) -> None:
        place = ", ".join(part for part in (None if row is None else f"row {row}", column) if part)
        super().__init__(f"{place}: {message}" if place else message)
        self.row = row
        self.column = column


class NotFound(ServiceError):
    """There is nothing at this path, or it is for a model that this service does not serve."""

    status = 404


class MethodNotAllowed(ServiceError):
    """The path is known, but not for this method."""

    status = 405


class PayloadTooLarge(ServiceError):
    """The request's body is over the limit."""

    status = 413


class TooManyRequests(ServiceError):
    """The queue is full. The answer says when to try again, in its `Retry-After` header."""

    status = 429


class Unavailable(ServiceError):
    """The service cannot answer now: it is starting or stopping."""

    status = 503
