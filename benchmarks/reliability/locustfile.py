"""A client that asks one thing after the other and compares every answer; `load` starts so many of them by Locust.

The requests and their right answers are in the file that CASES names. After a 429 it waits as long as it is told.
"""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import gevent
from locust import FastHttpUser, task

from benchmarks.reliability.traffic import Case

CASES_FILE = "CASES"  # the environment variable
CASES: list[Case] = pickle.loads(Path(os.environ[CASES_FILE]).read_bytes())


class Client(FastHttpUser):
    """Its requests are counted by the status that they were answered with."""

    network_timeout = connection_timeout = 300.0

    @task
    def ask(self) -> None:
        case = random.choice(CASES)
        # Bytes are sent as they are, whatever the annotation says.
        with self.client.post(case.path, data=case.content, catch_response=True, name="broken") as answer:
            answer.request_meta["name"] = str(answer.status_code)
            if answer.status_code == 429:
                answer.success()
            elif not answer.status_code:
                answer.failure("no answer")
            elif case.check(answer.status_code, answer.content) is None:
                answer.failure("wrong")
            else:
                answer.success()
        if answer.status_code == 429:
            gevent.sleep(float(answer.headers["retry-after"]))
