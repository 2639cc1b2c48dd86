"""Errors as they go to another process and come back: word for word."""

from __future__ import annotations

import pickle

import pytest

from app import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.BadRequest("expected a list", row=3, column="input_boxes"),
        errors.ImageGone("sha256:ab", row=1),
        errors.TooManyRequests("full", retry_after_s=7),
        errors.PayloadTooLarge(5),
        errors.NotNumbers(),
        errors.Stopping(),
        errors.Unauthorized("no key"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error: errors.ServiceError) -> None:
    came = pickle.loads(pickle.dumps(error))
    assert type(came) is type(error)
    assert (came.message, str(came), came.status, came.headers) == (
        error.message,
        str(error),
        error.status,
        error.headers,
    )
    assert vars(came) == vars(error)
