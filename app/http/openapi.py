"""The service's description of itself: OpenAPI 3.1 and 3.0, and Swagger 2.0, out of one table of routes.

Written by hand because a request is a table whose columns decide what it means, which no type can say.
"""

from __future__ import annotations

from typing import Any

from app.contract import embedding_params, grid_params, tile_params
from app.contract.schemas import FEWEST_VERTICES, MAX_REGION_AREA, MAX_TEXTS, MAX_TOLERANCE, MOST_VERTICES
from app.http import openapi_label_studio, openapi_reload

VERSIONS = ("2", "3", "3.1")

_DETECTOR_REQUEST: dict[str, Any] = {
    "input_data": {"columns": ["image"], "index": [0], "data": [["<base64 or URL>"]]},
    "params": {"score_threshold": 0.3},
}
_SEGMENTER_REQUEST: dict[str, Any] = {
    "input_data": {
        "columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
        "index": [0],
        "data": [["<base64 or URL>", "", "[[125, 240, 375, 425]]", "", False]],
    },
    "params": {},
}

_INPUTS: dict[str, Any] = {"inputs": "<base64 or URL>", "parameters": {"points_per_batch": 16}}

# path -> summary, example, schema of one row's answer
_SCORING: dict[str, tuple[str, dict[str, Any], str]] = {
    "/score": (
        "Boxes, or masks: a request with SAM's prompt columns goes to SAM, one with only images to the detector. "
        "It takes the form of POST / too",
        _SEGMENTER_REQUEST,
        "RowAnswer",
    ),
    "/yolof/score": ("Boxes of the objects in each image", _DETECTOR_REQUEST, "Boxes"),
    "/sam/score": ("Masks for the points and boxes given with each image", _SEGMENTER_REQUEST, "Masks"),
    "/pipeline/score": ("Boxes of the objects in each image, and a mask for every box", _DETECTOR_REQUEST, "Boxes"),
}
_PLAIN = {
    "/": "Healthy, for probes",
    "/health/live": "Whether the process lives",
    "/health/ready": "Whether the models are loaded and have been run once",
    "/metrics": "Figures for Prometheus, unless they have a port of their own",
}
_ERRORS = {
    "400": "The request is wrong; the message says in which row and column",
    "401": "The service wants an API key, and the request has none that it knows",
    "404": "This service does not serve that model",
    "408": "The body did not arrive in time",
    "410": "A row names an image by its hash, and this service does not have it; send it again",
    "413": "The body is over the limit",
    "415": "The body is compressed in a way that is not known here",
    "429": "The queue, or the memory for bodies, is full; try again after Retry-After seconds",
    "500": "The service failed",
    "503": "The service is stopping, or its device's memory does not suffice",
    "504": "Not answered within the time that a request may take",
}

_CORNERS = {corner: {"type": "number"} for corner in ("topX", "topY", "bottomX", "bottomY")}
_TURNED = {
    "type": "array",
    "description": "[x1, y1, ..., x4, y4] in 0..1, with rotated_boxes; not of an empty mask",
    "items": {"type": "number"},
}

_SCHEMAS: dict[str, Any] = {
    "Request": {
        "type": "object",
        "required": ["input_data"],
        "properties": {
            "input_data": {
                "type": "object",
                "required": ["columns", "data"],
                "properties": {
                    "columns": {"type": "array", "items": {"type": "string"}},
                    "index": {"type": "array", "items": {}, "description": "One entry per row; not used"},
                    "data": {
                        "type": "array",
                        "items": {},
                        "description": "One list of values per row, in the order of columns",
                    },
                },
            },
            "params": {
                "type": "object",
                "properties": {
                    "score_threshold": {"type": "number", "minimum": 0, "maximum": 1},
                    "iou_threshold": {"type": "number", "minimum": 0, "maximum": 1},
                    "max_detections": {"type": "integer", "minimum": 1, "maximum": 1000},
                    "texts": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 1,
                        "maxItems": MAX_TEXTS,
                        "description": "What to find, for an open-vocabulary detector; others refuse it",
                    },
                    "masks": {
                        "type": "string",
                        "enum": ["detector", "segmenter", "none"],
                        "description": "Whose masks the boxes get, where the detector has masks of its own",
                    },
                    "multimask_output": {"type": "boolean", "description": "Pipeline only: three masks per box"},
                    "return_logits": {"type": "boolean", "description": "With each of SAM's masks also its logits"},
                    "coordinates": {"type": "string", "enum": ["absolute", "normalized"]},
                    "mask_format": {"type": "string", "enum": ["png", "rle", "polygon"]},
                    "exif_orientation": {"type": "boolean"},
                    "response_schema": {"type": "string", "enum": ["card", "live"]},
                    "min_region_area": {
                        "type": "integer",
                        "minimum": 0,
                        "maximum": MAX_REGION_AREA,
                        "description": "Islands and holes of a mask with fewer pixels go",
                    },
                    "fill_holes": {"type": "boolean", "description": "Masks have no holes"},
                    "largest_part": {"type": "boolean", "description": "Of each mask the largest part alone"},
                    "no_overlaps": {"type": "boolean", "description": "Each pixel belongs to the best mask alone"},
                    "class_agnostic_nms": {
                        "type": "boolean",
                        "description": "Boxes of unlike labels suppress each other too",
                    },
                    "tight_boxes": {"type": "boolean", "description": "The boxes around the masks"},
                    "rotated_boxes": {"type": "boolean", "description": "Also the smallest turned boxes"},
                    **grid_params.described(),
                    "polygon_tolerance": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": MAX_TOLERANCE,
                        "description": "How far, in pixels, a polygon may stray from the mask's outline",
                    },
                    "max_vertices": {
                        "type": "integer",
                        "minimum": FEWEST_VERTICES,
                        "maximum": MOST_VERTICES,
                        "description": "Corners of each polygon",
                    },
                    **tile_params.described(),
                },
            },
        },
    },
    "Inputs": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {"description": "Base64 or the URL of an image, or a list of such"},
            "parameters": {
                "type": "object",
                "properties": {**grid_params.described(), "threshold": {"type": "number", "minimum": 0, "maximum": 1}},
            },
        },
    },
    "PipelineAnswer": {
        "description": "All masks, best first: {results: [{mask, score}]}. Without a segmenter boxes: [{score, label, "
        "box: {xmin, ymin, xmax, ymax}}]. A list of such where inputs is a list",
    },
    "Mask": {
        "type": "object",
        "properties": {
            "encoded_binary_mask": {"type": "string", "description": "Base64 PNG, 8-bit greyscale, 0 or 255"},
            "rle": {
                "type": "object",
                "description": "COCO compressed RLE, with mask_format rle",
                "properties": {
                    "size": {"type": "array", "items": {"type": "integer"}},
                    "counts": {"type": "string"},
                },
            },
            "polygon": {
                "type": "array",
                "description": "[x1, y1, ...] in 0..1 for each region, with mask_format polygon",
                "items": {"type": "array", "items": {"type": "number"}},
            },
            "iou_score": {
                "type": "number",
                "description": "SAM's own guess of the mask's quality; not with a detector's mask",
            },
            "logits": {
                "type": "string",
                "description": "Base64 of the mask's logits, float16 row by row, with return_logits",
            },
            "box": {
                "type": "object",
                "description": "Around the mask, with tight_boxes where the row has prompts",
                "properties": _CORNERS,
            },
            "rotated_box": _TURNED,
        },
    },
    "Boxes": {
        "type": "object",
        "required": ["boxes"],
        "properties": {
            "boxes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["box", "label", "score"],
                    "properties": {
                        "box": {
                            "type": "object",
                            "description": "In 0..1 of the image's width and height",
                            "properties": _CORNERS,
                        },
                        "label": {"type": "string"},
                        "score": {"type": "number"},
                        "rotated_box": _TURNED,
                        "polygon": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                        "mask_per_prediction": {"type": "array", "items": {"$ref": "Mask"}},
                    },
                },
            }
        },
    },
    "Masks": {
        "type": "object",
        "description": 'The model card\'s form; response_schema "live" wraps it in "response" and says masks_per_...',
        "properties": {
            "predictions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"mask_per_prediction": {"type": "array", "items": {"$ref": "Mask"}}},
                },
            }
        },
    },
    "RowAnswer": {
        "type": "object",
        "description": "Boxes, as /yolof/score answers, or Masks, as /sam/score does",
    },
    "KeptImage": {
        "type": "object",
        "required": ["image", "width", "height"],
        "properties": {
            "image": {"type": "string", "description": "sha256:<hex>, for the image column of later requests"},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
        },
    },
    "Error": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},
}


# Authorization: Bearer <key>, as each form says it.
_BEARER = {"key": {"type": "http", "scheme": "bearer"}}
_HEADER = {"key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Bearer, and the key"}}


def document(service_version: str, form: str = "3.1") -> dict[str, Any]:
    """The description in one of VERSIONS: "2" is Swagger 2.0, "3" OpenAPI 3.0.3, "3.1" OpenAPI 3.1.0."""
    old = form == "2"
    paths: dict[str, Any] = {}
    for path, (summary, example, row) in _SCORING.items():
        answer = _response("One answer per row", {"type": "array", "items": {"$ref": row}}, old)
        name = path.strip("/").replace("/", "_")
        paths[path] = {"post": _scoring(name, summary, "Request", example, answer, old)}
    for path, summary in _PLAIN.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
    answer = _response("What transformers' pipeline gives", {"$ref": "PipelineAnswer"}, old)
    summary = "All masks of an image, in the form of Hugging Face's endpoints; or as /score"
    paths["/"]["post"] = _scoring("pipeline", summary, "Inputs", _INPUTS, answer, old)
    paths |= _images(old) | openapi_reload.paths(old) | openapi_label_studio.paths(_ERRORS, old)
    paths["/version"] = {
        "get": {
            "summary": "Versions, models, device, number format, whether demo weights are served",
            "responses": {"200": _response("A JSON object", {"type": "object"}, old)},
        }
    }
    head: dict[str, Any] = {
        "info": {
            "title": "box2mask",
            "version": service_version,
            "description": "YOLOF and SAM behind AzureML's scoring format",
        },
        "paths": paths,
        "security": [{}, {"key": []}],  # either, as a service has keys or none
    }
    if old:
        return _with_references(
            {"swagger": "2.0", "basePath": "/", **head, "securityDefinitions": _HEADER, "definitions": _SCHEMAS},
            "#/definitions/",
        )
    head |= {
        "openapi": {"3": "3.0.3", "3.1": "3.1.0"}[form],
        "components": {"schemas": _SCHEMAS, "securitySchemes": _BEARER},
    }
    return _with_references(head, "#/components/schemas/")


def _scoring(
    name: str, summary: str, request: str, example: dict[str, Any], answer: dict[str, Any], old: bool
) -> dict[str, Any]:
    """A route that scores what comes in `request`, a schema's name."""
    errors = {status: _response(text, {"$ref": "Error"}, old) for status, text in _ERRORS.items()}
    operation: dict[str, Any] = {"summary": summary, "operationId": name, "responses": {"200": answer, **errors}}
    if old:
        operation |= {"consumes": ["application/json"], "produces": ["application/json"]}
        operation["parameters"] = [{"name": "body", "in": "body", "required": True, "schema": {"$ref": request}}]
    else:
        content = {"application/json": {"schema": {"$ref": request}, "example": example}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _images(old: bool) -> dict[str, Any]:
    """Images that are sent once and named by their hash from then on."""
    binary = {"type": "string", "format": "binary"}
    statuses = ("400", "404", "413", "429", "500", "504")
    post: dict[str, Any] = {
        "summary": "Keep an image, so that later requests may name it by its hash",
        "operationId": "keep_image",
        "parameters": _query(embedding_params.AHEAD, old),
        "responses": {
            "200": _response("The image's name and size", {"$ref": "KeptImage"}, old),
            **{status: _response(_ERRORS[status], {"$ref": "Error"}, old) for status in statuses},
        },
    }
    post["responses"]["404"] |= {"description": "This service keeps no images"}
    reference: dict[str, Any] = {"name": "reference", "in": "path", "required": True}
    get: dict[str, Any] = {
        "summary": "An image that the same client has sent before",
        "operationId": "kept_image",
        "responses": {
            "200": {"description": "The file"},
            "410": _response("It is not here, or not this client's", {"$ref": "Error"}, old),
        },
    }
    if old:
        post |= {"consumes": ["application/octet-stream"], "produces": ["application/json"]}
        post["parameters"].append({"name": "body", "in": "body", "required": True, "schema": binary})
        get |= {"produces": ["image/*"], "parameters": [reference | {"type": "string"}]}
        get["responses"]["200"]["schema"] = {"type": "file"}
    else:
        url = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}
        content = {"application/octet-stream": {"schema": binary}, "application/json": {"schema": url}}
        post["requestBody"] = {"required": True, "content": content}
        get["parameters"] = [reference | {"schema": {"type": "string"}}]
        get["responses"]["200"]["content"] = {"image/*": {"schema": binary}}
    embedding = _embedding(old, reference)
    return {
        "/images": {"post": post},
        "/images/{reference}": {"get": get},
        "/images/{reference}/embedding": {"get": embedding},
    }


def _embedding(old: bool, reference: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    params = [reference | (text if old else {"schema": text}), *_query(embedding_params.PARAMS, old)]
    errors = {
        status: _response(_ERRORS[status], {"$ref": "Error"}, old)
        for status in ("400", "404", "410", "429", "500", "503", "504")
    }
    errors["410"] |= {"description": "The image is not here, or not this client's"}
    operation: dict[str, Any] = {
        "summary": "The segmenter's embedding of an image that the same client has sent, for its exported decoder",
        "operationId": "embedding",
        "parameters": params,
        "responses": {
            "200": {"description": "A safetensors file"},
            "304": {"description": "The same as the one with the ETag in If-None-Match"},
            **errors,
        },
    }
    if old:
        operation |= {"produces": ["application/octet-stream"]}
        operation["responses"]["200"]["schema"] = {"type": "file"}
    else:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        operation["responses"]["200"]["content"] = content
    return operation


def _query(params: dict[str, tuple[str, ...]], old: bool) -> list[dict[str, Any]]:
    kinds = {name: {"type": "string", "enum": list(values), "default": values[0]} for name, values in params.items()}
    one = {"in": "query", "required": False}
    return [{"name": name} | one | (kind if old else {"schema": kind}) for name, kind in kinds.items()]


def _response(description: str, schema: dict[str, Any], old: bool) -> dict[str, Any]:
    if old:
        return {"description": description, "schema": schema}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _with_references(node: Any, prefix: str) -> Any:
    """A copy whose `$ref`s, bare names in this module, point to where this form keeps its schemas."""
    if isinstance(node, dict):
        return {
            key: f"{prefix}{value}" if key == "$ref" else _with_references(value, prefix) for key, value in node.items()
        }
    return [_with_references(item, prefix) for item in node] if isinstance(node, list) else node
