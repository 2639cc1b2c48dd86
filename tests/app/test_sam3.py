"""SAM 3 over HTTP: all objects that a text names or exemplars show, their boxes as prompts of any SAM, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from app.settings import Settings
from tests.app.scoring_requests import OTHER, PICTURE, converse, mask_of, row, table, to_sam, to_yolof
from tests.models.detector.huggingface.test_concepts import text_values, write
from tests.models.segmenter.random_sams import random_sam3_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sam3")
    write(made, random_sam3_video(**text_values()))
    return made


def served(detector: object, segmenter: object, **more: Any) -> Settings:
    return Settings(detector=str(detector), segmenter=str(segmenter), device="cpu", dtype="float32", **more)


def shown(*rows: list[Any], **params: Any) -> dict[str, Any]:
    return table(["image", "exemplar_boxes", "exemplar_labels"], list(rows), {"score_threshold": 0.0} | params)


def test_one_folder_finds_by_texts_and_segments_by_clicks(folder: Path) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        said = (await client.get("/version")).json()
        assert said["detector"]["takes_texts"] and said["detector"]["has_masks"]
        asked = to_yolof(PICTURE, OTHER, texts=["can", "milk carton"], score_threshold=0.0)
        answer = await client.post("/yolof/score", json=asked | {"params": asked["params"] | {"mask_format": "png"}})
        assert answer.status_code == 200, answer.text
        for found, size_hw in zip(answer.json(), ((64, 128), (75, 100)), strict=True):
            assert {box["label"] for box in found["boxes"]} == {"can", "milk carton"}
            assert all(mask_of(box["mask_per_prediction"][0]).shape == size_hw for box in found["boxes"])
        few = asked | {"params": asked["params"] | {"max_detections": 2}}
        (piped, _) = (await client.post("/pipeline/score", json=few)).json()  # SAM 3's boxes prompt SAM
        expected = [box["box"] for box in answer.json()[0]["boxes"][:2]]
        assert [box["box"] for box in piped["boxes"]] == expected
        assert all("iou_score" in box["mask_per_prediction"][0] for box in piped["boxes"])
        (clicked,) = (await client.post("/sam/score", json=to_sam(row(points="[[[30, 30]]]")))).json()
        assert mask_of(clicked["predictions"][0]["mask_per_prediction"][0]).shape == (64, 128)
        refused = await client.post("/sam/score", json=to_sam(row(points="[[[30, 30]]]"), texts=["can"]))
        assert refused.status_code == 400
        assert refused.json()["message"] == (
            "params.texts: SAM takes points, boxes and masks here: ask /pipeline/score, with Grounding DINO, OWLv2 or "
            "SAM 3 as BOX2MASK_DETECTOR, for masks of what they name"
        )

    converse(served(folder, folder), conversation)


def test_exemplars(folder: Path) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        async def scores(request: dict[str, Any]) -> list[list[float]]:
            answer = await client.post("/pipeline/score", json=request)
            assert answer.status_code == 200, answer.text
            return [[box["score"] for box in found["boxes"]] for found in answer.json()]

        box = [[10, 10, 60, 50]]
        like, unlike, as_text, none = await scores(
            shown(
                [PICTURE, box, [1]],
                [PICTURE, [[80, 5, 120, 60], *box], [1, 0]],
                [PICTURE, str(box), ""],
                [PICTURE, "", ""],
            )
        )
        assert like == as_text and len({tuple(like), tuple(unlike), tuple(none)}) == 3
        (in_fractions,) = await scores(
            shown([PICTURE, [[10 / 128, 10 / 64, 60 / 128, 50 / 64]], [1]], coordinates="normalized")
        )
        np.testing.assert_allclose(in_fractions, like, rtol=0, atol=1e-5)
        (named,) = await scores(shown([PICTURE, box, [0]], texts=["can"]))
        assert named != like
        answer = await client.post("/yolof/score", json=shown([PICTURE, box, [1]]))
        assert {one["label"] for one in answer.json()[0]["boxes"]} == {"visual"}
        for rows, params, message in (
            ([PICTURE, box, [0]], {}, "exemplar_labels: expected a label 1, or a text in params.texts: 0 alone says"),
            ([PICTURE, box, [1, 0]], {}, "exemplar_labels: expected one label per box (1), got 2"),
            ([PICTURE, box, [1]], {"tiles": 32}, "exemplar_boxes: expected none with params.tiles, as most tiles lack"),
            ([PICTURE, box, [2]], {}, "exemplar_labels: expected labels 1 (like this) or 0 (not like this), got 2"),
            (
                [PICTURE, box, [[1]]],
                {},
                "exemplar_labels: expected (num_boxes,), got (1, 1); it has a pair of brackets",
            ),
            ([PICTURE, "", [1]], {}, "exemplar_labels: expected exemplar_boxes to go with the labels, got none"),
            ([PICTURE, [[1, 2, 3]], [1]], {}, "exemplar_boxes: expected (num_boxes, 4), got (1, 3)"),
            ([PICTURE, [[60, 10, 10, 50]], [1]], {}, "exemplar_boxes: box 0: expected x1 < x2 and y1 < y2, got "),
            ([PICTURE, box * 65, ""], {}, "exemplar_boxes: expected at most 64 boxes, got 65"),
            (
                [PICTURE, box, [1]],
                {"texts": ["can", "carton"]},
                "params.texts: expected one text with exemplars, which",
            ),
        ):
            refused = await client.post("/yolof/score", json=shown(rows, **params))
            assert refused.status_code == 400 and refused.json()["message"].removeprefix("row 0, ").startswith(message)

    converse(served(folder, "none", texts="can"), conversation)


def test_exemplars_for_others_are_refused_with_the_way_out(model_folders: Any) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        refused = await client.post("/yolof/score", json=shown([PICTURE, [[10, 10, 60, 50]], [1]]))
        assert refused.status_code == 400 and refused.json()["message"] == (
            "row 0, exemplar_boxes: this detector takes no exemplars: leave them out, or serve SAM 3 as "
            "BOX2MASK_DETECTOR"
        )
        assert (await client.post("/yolof/score", json=shown([PICTURE, "", None]))).status_code == 200
        columns = [*row(), "exemplar_boxes"]
        refused = await client.post("/sam/score", json=table(columns, [[*row().values(), [[10, 10, 60, 50]]]]))
        assert refused.status_code == 400 and refused.json()["message"].startswith(
            "input_data.columns: exemplar_boxes are no prompts of SAM's: ask /pipeline/score, with SAM 3 as"
        )

    converse(served(model_folders.detector, model_folders.segmenter), conversation)
