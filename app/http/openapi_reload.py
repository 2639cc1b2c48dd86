"""What the service's description says of new models while it runs."""

from __future__ import annotations

from typing import Any

_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "detector": {"type": "string", "description": "As BOX2MASK_DETECTOR; without it, as it is set now"},
        "segmenter": {"type": "string", "description": "As BOX2MASK_SEGMENTER; without it, as it is set now"},
    },
    "additionalProperties": False,
}
_ERRORS = {
    "400": "There are no such models, or their files make none; the models stay as they are",
    "401": "Not the key in BOX2MASK_ADMIN_KEY",
    "404": "The service has no BOX2MASK_ADMIN_KEY",
    "408": "The body did not arrive in time",
    "409": "Models are being loaded already",
    "413": "The body is too large",
    "500": "The models do not work; the models stay as they are",
    "503": "The service is stopping",
}


def paths(old: bool) -> dict[str, Any]:
    """The path, in Swagger 2.0's form (`old`) or OpenAPI's."""

    def answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
        body = {"schema": schema}
        return {"description": description, **(body if old else {"content": {"application/json": body}})}

    operation: dict[str, Any] = {
        "summary": "Load models anew; those before answer until these do",
        "operationId": "reload",
        "responses": {
            "200": answer("As /version, when the new models answer", {"type": "object"}),
            **{status: answer(text, {"$ref": "Error"}) for status, text in _ERRORS.items()},
        },
    }
    if old:
        operation |= {"consumes": ["application/json"], "produces": ["application/json"]}
        operation["parameters"] = [{"name": "body", "in": "body", "required": False, "schema": _BODY}]
    else:
        operation["requestBody"] = {"required": False, "content": {"application/json": {"schema": _BODY}}}
    return {"/models/reload": {"post": operation}}
