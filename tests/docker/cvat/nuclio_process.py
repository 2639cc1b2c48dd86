"""Run by the Python with Nuclio's SDK: calls docker/cvat/main.py as Nuclio's wrapper of Python functions does.

Arguments: the folder of main.py. Each line of standard input is a request, as JSON: the function, the content type, and
the body as text. Each line of standard output is the response, as Nuclio's processor gets it; for a detector's, with
`shapes` as CVAT's server stores them.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import nuclio_sdk
import numpy as np
from datumaro.util.mask_tools import mask_to_rle
from nuclio_sdk.json_encoder import Encoder

sys.path.insert(0, sys.argv[1])
import main  # noqa: E402


def event_of(content_type: str, body: str) -> Any:
    """What comes over Nuclio's socket, unpacked: keys and texts are bytes."""
    message = {
        "body": body.encode(),
        "content_type": content_type.encode(),
        "trigger": {b"kind": b"http", b"name": b"http"},
        "fields": {},
        "headers": {},
        "id": b"1",
        "method": b"POST",
        "path": b"/",
        "size": len(body),
        "timestamp": 0,
        "url": b"",
        "shard_id": 0,
        "num_shards": 0,
        "type": b"",
        "type_version": b"",
        "version": b"",
    }
    return nuclio_sdk.Event.deserialize({name.encode(): value for name, value in message.items()})


def stored(found: list[dict[str, Any]], as_polygons: bool) -> list[dict[str, Any]]:
    """What CVAT's server makes of a detector's answer (lambda_manager, of its release 2.4x)."""
    shapes = []
    for one in found:
        kind, points = one["type"], one["mask"] if one["type"] == "mask" else one["points"]
        if kind == "mask" and "points" in one and as_polygons:
            kind, points = "polygon", one["points"]
        elif kind == "mask":
            pixels = np.array(points[:-4])[:, np.newaxis]
            points = [*mask_to_rle(pixels)["counts"].tolist(), *points[-4:]]
        shapes.append({"type": kind, "label": one["label"], "points": points})
    return shapes


context = nuclio_sdk.Context(logger=nuclio_sdk.Logger("INFO"))
context.logger.set_handler("default", sys.stderr, nuclio_sdk.logger.HumanReadableFormatter())
main.init_context(context)
for line in sys.stdin:
    request = json.loads(line)
    output = getattr(main, request["function"])(context, event_of(request["content_type"], request["body"]))
    response = nuclio_sdk.Response.from_entrypoint_output(Encoder().encode, output)
    if request["function"] == "detect" and response["status_code"] == 200:
        found = json.loads(response["body"])
        response["shapes"] = {kind: stored(found, kind == "polygons") for kind in ("as they are", "polygons")}
    print(json.dumps(response), flush=True)
