"""The service's errors and the HTTP status of each. Whatever else is raised is a fault of the server's: a 500.

ServiceError            500  something failed that the client could not have helped
├── BadRequest          400  the request is wrong; says which row and column
├── Unauthorized        401  no API key, or one that this service does not know
├── NotFound            404  no such route, or a model that this service does not serve
├── MethodNotAllowed    405  the route exists, not for this method
├── RequestTimeout      408  the body did not arrive in time
├── Conflict            409  what is asked for is being done already
├── ImageGone           410  a request names an image by its hash, and it is not here (any more): send it again
├── PayloadTooLarge     413  the body is over the limit
├── UnsupportedEncoding 415  the body is compressed in a way that is not known here
├── TooManyRequests     429  as many are in work or waiting as may be; try again soon
├── ClientGone          499  nobody is there to read the answer
├── NotNumbers          500  the model returned NaN or infinity
├── Unavailable         503  this service cannot answer now: it is stopping, or its memory does not suffice
│   └── Stopping        503  it has been told to end
└── DeadlineExceeded    504  the answer took longer than a request may take
"""

from __future__ import annotations

from typing import Any, ClassVar


class ServiceError(Exception):
    """An error whose `message` may be shown to the client, answered with `status`."""

    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.headers: dict[str, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, where it goes to another process: what it was made from is not kept."""
        return _as_it_was, (type(self), self.message), self.__dict__


def _as_it_was(kind: type[ServiceError], message: str) -> ServiceError:
    error = kind.__new__(kind)
    ServiceError.__init__(error, message)
    return error


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


class Unauthorized(ServiceError):
    """The service wants an API key, and the request has none that it knows."""

    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["www-authenticate"] = "Bearer"


class NotFound(ServiceError):
    """There is nothing at this path, or it is for a model that this service does not serve."""

    status = 404


class MethodNotAllowed(ServiceError):
    """The path is known, but not for this method."""

    status = 405


class Conflict(ServiceError):
    """What is asked for is being done already, for somebody else."""

    status = 409


class ImageGone(ServiceError):
    """An image was named by its hash, and this client has not sent it, or so long ago that it made room for others.

    The only cause of its status, so that a client knows by it that the image is to be sent again.
    """

    status = 410

    def __init__(self, reference: str, *, row: int | None = None) -> None:
        place = "" if row is None else f"row {row}, image: "
        super().__init__(f"{place}expected an image that was sent before, {reference!r} is not here; send it again")


class RequestTimeout(ServiceError):
    """The body did not arrive in the time that one may take; the connection is closed."""

    status = 408

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["connection"] = "close"


class PayloadTooLarge(ServiceError):
    """The request's body is over the limit, which is `most` bytes."""

    status = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"expected a body of at most {most} bytes, got more")


class UnsupportedEncoding(ServiceError):
    """The body is compressed in a way that is not known here."""

    status = 415


class TooManyRequests(ServiceError):
    """The queue is full. retry_after_s: when a place should be free, for the answer's `Retry-After` header."""

    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers["retry-after"] = str(retry_after_s)


class ClientGone(ServiceError):
    """The client closed the connection; the status, nginx's for this, is seen in logs only."""

    status = 499


class NotNumbers(ServiceError):
    """A model returned NaN or infinity for this request: its weights or its device are at fault."""

    def __init__(self) -> None:
        super().__init__("the model returned values that are not numbers")


class Unavailable(ServiceError):
    """The service cannot answer now: it is stopping, or its device's memory does not suffice."""

    status = 503


class Stopping(Unavailable):
    """The service has been told to end; what it had begun is still answered."""

    def __init__(self) -> None:
        super().__init__("this service is stopping")
        self.headers.update({"connection": "close", "retry-after": "1"})


class DeadlineExceeded(ServiceError):
    """The request was not answered in the time that one may take; what was left of its work is dropped."""

    status = 504
