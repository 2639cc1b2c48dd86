"""What the service's description says of Label Studio's ML backend."""

from __future__ import annotations

from typing import Any

_EXAMPLE: dict[str, Any] = {
    "tasks": [{"id": 7, "data": {"image": "/data/upload/1/a.jpg"}}],
    "label_config": '<View><Image name="image" value="$image"/>...</View>',
    "params": {"context": None},
}
_SUMMARIES = {
    ("/label-studio/health", "get"): "Whether the ML backend answers; never waits for predictions",
    ("/label-studio/setup", "post"): "Which version of predictions a project with this labelling interface gets",
    ("/label-studio/predict", "post"): "Pre-labels of tasks, or the mask of what a smart tool has drawn",
    ("/label-studio/webhook", "post"): "Takes Label Studio's notices, and does nothing",
    ("/label-studio/versions", "get"): "Versions of predictions since the service started",
}
# Beside 200, and the 401 of a service with keys.
_REFUSALS = {
    "health": ("503",),
    "setup": ("400", "408", "413", "429", "503"),
    "predict": ("400", "404", "408", "413", "415", "429", "500", "503", "504"),
    "webhook": ("408",),
    "versions": (),
}


def paths(errors: dict[str, str], old: bool) -> dict[str, Any]:
    """The paths, in Swagger 2.0's form (`old`) or OpenAPI's. errors: what each status means."""
    found: dict[str, Any] = {}
    for (path, method), summary in _SUMMARIES.items():
        name = path.rsplit("/", 1)[-1]
        statuses = (*_REFUSALS[name], *(() if name == "webhook" else ("401",)))
        operation: dict[str, Any] = {
            "summary": summary,
            "operationId": f"label_studio_{name}",
            "responses": {
                "200": _json("A JSON object, as Label Studio takes it", {"type": "object"}, old),
                **{status: _json(errors[status], {"$ref": "Error"}, old) for status in statuses},
            },
        }
        if method == "post" and old:
            operation |= {"consumes": ["application/json"], "produces": ["application/json"]}
            schema = {"type": "object"}
            operation["parameters"] = [{"name": "body", "in": "body", "required": True, "schema": schema}]
        elif method == "post":
            content: dict[str, Any] = {"schema": {"type": "object"}}
            content |= {"example": _EXAMPLE} if name == "predict" else {}
            operation["requestBody"] = {"required": True, "content": {"application/json": content}}
        found[path] = {method: operation}
    return found


def _json(description: str, schema: dict[str, Any], old: bool) -> dict[str, Any]:
    if old:
        return {"description": description, "schema": schema}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
