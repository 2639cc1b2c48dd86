"""The MLflow folder, loaded by MLflow where there is no checkout: its answers are those of the service."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from transformers import SamModel

from app.cli import main
from app.contract import schemas
from app.engine.loading import Choice, Chosen
from app.mlflow.export import ExportError, _stage, export_mlflow, model_requirements
from app.mlflow.model import MlflowModel
from app.settings import Settings
from models.demo.scenes import render_scene
from models.detector.families import DETECTORS
from models.segmenter.families import SEGMENTERS
from models.segmenter.grid import Grid
from tests.app.same_answers import assert_same

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # asked as MLflow is imported
mlflow = pytest.importorskip("mlflow")
pandas = pytest.importorskip("pandas")

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
]

REPOSITORY = Path(__file__).parents[3]
SHARED = REPOSITORY.parent / "shared" / "requests"
SERVED_WITHIN_S = 300


def picture(seed: int) -> str:
    file = BytesIO()
    Image.fromarray(render_scene(np.random.default_rng(seed), (160, 120), containers=(2, 2)).image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def table(columns: tuple[str, ...], *rows: list[Any]) -> dict[str, Any]:
    return {"columns": list(columns), "data": list(rows)}


ONE = table(("image",), [picture(1)])
PROMPTS = table(
    schemas.SEGMENTER_COLUMNS,
    [picture(1), "[[[80, 60]], [[20, 30]]]", "", "", False],
    [picture(1), "", "[[10, 20, 90, 100]]", None, True],
    [picture(2), "[[[80, 60], [20, 30]]]", "[[10.5, 20, 90, 100]]", "[[1, 0]]", False],
)
FEW = {"score_threshold": 0.0, "max_detections": 3}
# By name: the folder that is asked, the request, and the route of the service that answers the same.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None, str]] = {
    "boxes": ("detector", table(("image",), [picture(1)], [picture(2)]), None, "/yolof/score"),
    "boxes by params": ("detector", ONE, FEW, "/yolof/score"),
    "columns that nobody asked for": ("detector", table(("id", "image"), ["a", picture(3)]), None, "/yolof/score"),
    "masks": ("segmenter", PROMPTS, None, "/sam/score"),
    "masks as Azure's endpoint has them": ("segmenter", PROMPTS, {"response_schema": "live"}, "/sam/score"),
    "masks as RLE": ("segmenter", PROMPTS, {"mask_format": "rle"}, "/sam/score"),
    "boxes and masks": ("both", ONE, FEW, "/pipeline/score"),
    "boxes and polygons": ("both", ONE, {**FEW, "mask_format": "polygon"}, "/pipeline/score"),
    "masks by a folder with both": ("both", PROMPTS, None, "/sam/score"),
}
# What is wrong, and what the error says of it.
BAD: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None, str]] = {
    "no image": (
        "detector",
        table(("image",), [picture(1)], ["abc"]),
        None,
        r"row 1, image: expected a JPEG, PNG, .*, got 2 bytes",
    ),
    "a missing image": ("detector", table(("image",), [picture(1)], [None]), None, r"row 1, image: .* got null"),
    "no boxes": (
        "segmenter",
        table(schemas.SEGMENTER_COLUMNS, [picture(1), "", "[[1, 2, 3]]", "", True]),
        None,
        r"row 0, input_boxes: expected \(num_boxes, 4\), got \(1, 3\)",
    ),
    "half of the prompt columns": (
        "both",
        table(("image", "input_boxes"), [picture(1), "[[1, 2, 30, 40]]"]),
        None,
        r"input_points, input_labels, multimask_output missing",
    ),
    "no fraction": ("both", ONE, {"score_threshold": 7.0}, r"params\.score_threshold: expected a number from 0 to 1"),
    "no number": ("both", ONE, {"score_threshold": "high"}, r"score_threshold"),
    "no column of that name": ("detector", table(("picture",), [picture(1)]), None, r"missing inputs \['image'\]"),
}

# Loads each folder by MLflow in a process that has MLflow and what box2mask needs, but no box2mask.
LOADER = """
import json, sys
repository, asked, out = sys.argv[1:]
sys.path[:] = [path for path in sys.path if not path.startswith(repository + "/app") and path not in ("", repository)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
try:
    import app
    raise SystemExit(f"there is an app without the folder: {app}")
except ModuleNotFoundError:
    pass
import mlflow.pyfunc
import pandas
for name in ("fastapi", "starlette", "uvicorn"):  # MLflow's own version of them may not be box2mask's
    sys.modules[name] = None
loaded, answers = {}, []
for folder, table, params in json.load(open(asked)):
    if folder not in loaded:
        loaded[folder] = mlflow.pyfunc.load_model(folder)
    try:
        answer = loaded[folder].predict(pandas.DataFrame(**table), params=params)
        assert isinstance(answer, pandas.DataFrame), answer
        answers.append(answer.to_dict(orient="records"))
    except Exception as error:
        answers.append(f"{type(error).__name__}: {error}")
from importlib.metadata import version
import app, models
json.dump({"answers": answers, "code": [app.__file__, models.__file__], "version": version("box2mask")}, open(out, "w"))
"""


def environment() -> dict[str, str]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("BOX2MASK_", "AZUREML_", "PYTHON"))
    }
    settings = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_DTYPE": "float32"}
    return own | settings | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def folders(model_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with the detector, one with the segmenter and one with both, each moved to where it was not written."""
    detector, segmenter = Chosen(model_folders.detector, "d", False), Chosen(model_folders.segmenter, "s", False)
    written, moved = tmp_path_factory.mktemp("written"), tmp_path_factory.mktemp("moved")
    choices = {
        "detector": Choice(detector, None),
        "segmenter": Choice(None, segmenter),
        "both": Choice(detector, segmenter),
    }
    for name, choice in choices.items():
        export_mlflow(choice, written / name, Settings(device="cpu"))  # type: ignore[call-arg]
        assert [path.name for path in written.iterdir()] == [name]
        shutil.move(written / name, moved / name)
    return {name: moved / name for name in choices}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the folders said to every case and every bad one, by its name, and where their code came from."""
    asked: dict[str, tuple[str, Any, Any]] = {
        name: (str(folders[folder]), content, params) for name, (folder, content, params, _) in {**CASES, **BAD}.items()
    }
    for name, folder in (("yolof_card", "detector"), ("sam_card", "segmenter"), ("sam_notebook", "segmenter")):
        if (SHARED / f"{name}.json").is_file():
            request = json.loads((SHARED / f"{name}.json").read_bytes())
            asked[name] = (str(folders[folder]), request["input_data"], request.get("params"))
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "asked.json").write_text(json.dumps(list(asked.values())))
    command = [sys.executable, "-c", LOADER, str(REPOSITORY), "asked.json", "answers.json"]
    done = subprocess.run(
        command, cwd=place, env=environment(), capture_output=True, text=True, timeout=SERVED_WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((place / "answers.json").read_text())
    return {**said, "answers": dict(zip(asked, said["answers"], strict=True))}


def ask_service(service: Any, route: str, content: dict[str, Any], params: dict[str, Any] | None) -> Any:
    answer = httpx.post(f"{service.url}{route}", json={"input_data": content, "params": params}, timeout=60)
    answer.raise_for_status()
    return answer.json()


@pytest.mark.parametrize("case", CASES)
def test_it_answers_as_the_service(case: str, loaded: dict[str, Any], service: Any) -> None:
    _, content, params, route = CASES[case]
    answers = ask_service(service, route, content, params)
    assert len(answers) == len(content["data"])
    assert all(next(iter(answer.values())) for answer in answers)  # there is something to compare
    assert_same(loaded["answers"][case], answers)


@pytest.mark.parametrize(("name", "route"), [("yolof_card", 0), ("sam_card", 1), ("sam_notebook", 1)])
def test_it_answers_the_catalogs_requests_as_the_service(
    name: str, route: int, loaded: dict[str, Any], service: Any
) -> None:
    if name not in loaded["answers"]:
        pytest.skip(f"there is no {name}.json")
    request = json.loads((SHARED / f"{name}.json").read_bytes())
    answers = ask_service(service, ("/yolof/score", "/sam/score")[route], request["input_data"], request.get("params"))
    assert_same(loaded["answers"][name], answers)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_told_with_row_and_column(case: str, loaded: dict[str, Any]) -> None:
    said = loaded["answers"][case]
    assert isinstance(said, str)
    assert said.startswith("MlflowException: ")
    assert re.search(BAD[case][3], said), said


def test_the_code_is_the_folders_own(loaded: dict[str, Any], folders: dict[str, Path]) -> None:
    own = [str(folder / "code") for folder in folders.values()]
    assert all(file.startswith(tuple(own)) for file in loaded["code"])
    assert loaded["version"] == tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def test_the_code_does_not_bring_the_demo_weights(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        assert (folder / "code" / "models" / "weights" / "places.py").is_file()
        assert not list((folder / "code").rglob("*.safetensors")) and not list((folder / "code").rglob("manifest.json"))


def test_no_file_names_a_place_on_this_machine(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        for file in folder.rglob("*"):
            assert not file.is_symlink()
            content = b"" if file.is_dir() or file.suffix == ".pyc" else file.read_bytes()  # made where it was loaded
            for place in (REPOSITORY, folder.parent, folder.parents[1]):
                assert str(place).encode() not in content, file


def test_the_signature_is_the_catalogs(folders: dict[str, Path]) -> None:
    signatures = {name: mlflow.models.get_model_info(str(folder)).signature for name, folder in folders.items()}
    inputs = {name: signature.inputs.to_dict() for name, signature in signatures.items()}
    assert inputs["detector"] == [{"type": "string", "name": "image", "required": True}]
    assert [(column["name"], column["type"]) for column in inputs["segmenter"]] == [
        ("image", "string"),
        ("input_points", "string"),
        ("input_boxes", "string"),
        ("input_labels", "string"),
        ("multimask_output", "boolean"),
        ("input_masks", "string"),  # beside the catalog's, for whoever has it
    ]
    assert [column["name"] for column in inputs["segmenter"] if not column["required"]] == ["input_masks"]
    assert [column["name"] for column in inputs["both"] if column["required"]] == ["image"]
    assert signatures["detector"].outputs.input_names() == ["boxes"]
    assert signatures["segmenter"].outputs.input_names() == ["predictions"]
    for signature in signatures.values():  # AzureML's scoring script makes tables of them
        for schema in (signature.inputs, signature.outputs):
            pandas.DataFrame(columns=schema.input_names()).astype(
                dict(zip(schema.input_names(), schema.pandas_types(), strict=True))
            )


def test_the_params_are_those_that_the_service_knows(folders: dict[str, Path]) -> None:
    params = {
        name: {param.name: param.default for param in mlflow.models.get_model_info(str(folder)).signature.params}
        for name, folder in folders.items()
    }
    tables = re.findall(r"^\| `params` \|.*\n((?:\|.*\n)+)", (REPOSITORY / "docs" / "api.md").read_text(), re.MULTILINE)
    known = re.findall(r"^\| `(\w+)` \| ", "".join(tables), re.MULTILINE)
    assert set(params["both"]) == set(known)
    boxes = {"score_threshold", "iou_threshold", "max_detections", "class_agnostic_nms", "exif_orientation"}
    cleaning = {"min_region_area", "fill_holes", "largest_part", "no_overlaps", "tight_boxes", "rotated_boxes"}
    of_sam = {"coordinates", "mask_format", "exif_orientation", "response_schema", "return_logits"}
    cleaning |= {"polygon_tolerance", "max_vertices"}
    boxes |= {"tiles", "tile_overlap", "tile_merge"}
    of_sam |= {"tiles", "tile_overlap"}
    assert set(params["detector"]) == boxes
    assert set(params["segmenter"]) == cleaning | of_sam | {field.name for field in dataclasses.fields(Grid)}
    defaults = {name: value for name, value in params["both"].items() if value is not None}
    assert schemas.parse_params(defaults) == schemas.Params()


def test_what_is_to_be_installed_is_pinned_as_here(folders: dict[str, Path]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = (folders["both"] / "requirements.txt").read_text().split()
    assert needed == list(model_requirements())
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in needed)
    left_out = set(project["dependencies"]) - set(needed)
    assert {line.split("==")[0] for line in left_out} == {
        "fastapi", "matplotlib", "platformdirs", "prometheus-client", "python-json-logger", "pyyaml", "tensorboard",
        "tqdm", "uvicorn",
    }  # fmt: skip
    assert set(project["optional-dependencies"]["mlflow"]) <= set(needed)
    versions = dict(line.split("==") for line in needed)
    assert versions["opencv-python"] == version("opencv-python-headless")
    conda = Path(mlflow.pyfunc.get_model_dependencies(str(folders["both"]), format="conda")).read_text()
    python = f"python={sys.version_info.major}.{sys.version_info.minor}"
    assert all(f"- {line}\n" in conda for line in (*needed, python, "libgl", "libglib"))


@pytest.fixture(scope="module")
def model(model_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowModel]:
    weights = tmp_path_factory.mktemp("weights")
    (weights / "detector").symlink_to(model_folders.detector)
    (weights / "segmenter").symlink_to(model_folders.segmenter)
    started = MlflowModel(weights, Settings(device="cpu", max_rows=4))  # type: ignore[call-arg]
    yield started
    started.close()
    started.close()  # a second time does nothing


@pytest.mark.parametrize(
    ("columns", "params", "key"),
    [
        (schemas.DETECTOR_COLUMNS, None, "boxes"),
        (schemas.SEGMENTER_COLUMNS, None, "predictions"),
        (schemas.SEGMENTER_COLUMNS, {"response_schema": "live"}, "response"),
    ],
)
def test_a_table_without_rows_is_answered_by_one(
    columns: tuple[str, ...], params: dict[str, Any] | None, key: str, model: MlflowModel
) -> None:
    answer = model.predict(pandas.DataFrame(columns=list(columns)), params)
    assert list(answer.columns) == [key]
    assert len(answer) == 0


def test_cells_may_be_numpys_and_missing_ones_of_any_kind(model: MlflowModel) -> None:
    rows = [
        [picture(1), "", "[[10, 20, 90, 100]]", "", False],
        [picture(1), float("nan"), np.array([[10, 20, 90, 100]]), pandas.NA, np.bool_(False)],
    ]
    answer = model.predict(pandas.DataFrame(rows, columns=list(schemas.SEGMENTER_COLUMNS), dtype=object))
    first, second = answer["predictions"]
    assert first == second
    assert len(first[0]["mask_per_prediction"]) == 1


def test_limits_hold_and_cells_that_json_has_not_are_told(model: MlflowModel) -> None:
    with pytest.raises(mlflow.MlflowException, match="at most 4 rows, got 5"):
        model.predict(pandas.DataFrame({"image": [picture(1)] * 5}))
    with pytest.raises(mlflow.MlflowException, match=r"row 1, image: expected text, .* got Timestamp"):
        model.predict(pandas.DataFrame({"image": [picture(1), pandas.Timestamp(0)]}))
    with pytest.raises(mlflow.MlflowException, match=r"row 1, image: expected a JPEG, .* got 4 bytes that start with"):
        model.predict(pandas.DataFrame({"image": [picture(1), b"\xffraw"]}))


def test_an_image_may_be_bytes_of_a_file_or_of_its_base64(model: MlflowModel) -> None:
    """As AzureML's batch endpoints, Parquet files and `base64.encodebytes` without `decode` hand them over."""
    file = base64.b64decode(picture(1))
    images = [picture(1), file, bytearray(file), base64.encodebytes(file)]
    answers = model.predict(pandas.DataFrame({"image": images}, dtype=object), FEW)["boxes"]
    assert len(answers[0]) == 3
    for answer in answers[1:]:
        assert answer == answers[0]


def test_a_folder_for_image_files_takes_one_column_of_bytes(model_folders: Any, tmp_path: Path) -> None:
    """AzureML's batch driver reads image files for such a signature alone: a table of the file's bytes, one a call."""
    detector, segmenter = Chosen(model_folders.detector, "d", False), Chosen(model_folders.segmenter, "s", False)
    settings = Settings(device="cpu")  # type: ignore[call-arg]
    with pytest.raises(ExportError, match="--image-files: expected a detector"):
        export_mlflow(Choice(None, segmenter), tmp_path / "none", settings, image_files=True)
    export_mlflow(Choice(detector, segmenter), tmp_path / "files", settings, image_files=True)
    signature = mlflow.models.get_model_info(str(tmp_path / "files")).signature
    assert [str(kind) for kind in signature.inputs.input_types()] == ["DataType.binary"]
    name = signature.inputs.input_names()[0]
    file = base64.b64decode(picture(1))
    table = pandas.DataFrame({name: [file]})
    enforced = mlflow.models.utils._enforce_schema(table, signature.inputs)
    assert enforced[name].tolist() == [file]


def test_the_documents_deployment_has_the_probes_of_the_others() -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "mlflow.md").read_text(), re.DOTALL)
    other = yaml.safe_load((REPOSITORY / "docker" / "azureml" / "deployment-score.yml").read_text())
    deployment = yaml.safe_load(written)
    for name in ("liveness_probe", "readiness_probe"):
        assert deployment[name] == other[name]
    variable = "WORKER_TIMEOUT"
    assert deployment["environment_variables"][variable] == other["environment_variables"][variable]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def served(folders: dict[str, Path], tmp_path: Path) -> Iterator[str]:
    """The URL of `mlflow models serve` with the folder of both models, far from the repository."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "--model-uri", str(folders["both"])]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment() | {"PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + SERVED_WITHIN_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/ping", timeout=10).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            raise AssertionError((tmp_path / "log").read_text())
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_mlflows_server_answers_as_the_service(served: str, service: Any) -> None:
    for content, params, route in ((ONE, FEW, "/pipeline/score"), (PROMPTS, None, "/sam/score")):
        answer = httpx.post(served, json={"dataframe_split": content, "params": params}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"predictions"}
        assert len(answer.json()["predictions"]) == len(content["data"])
        assert_same(answer.json()["predictions"], ask_service(service, route, content, params))

    answer = httpx.post(served, json={"dataframe_split": table(("image",), [picture(1)], ["abc"])}, timeout=60)
    assert answer.status_code == 400
    assert "row 1, image: expected a JPEG" in answer.json()["message"]


def test_a_config_that_inherits_is_written_out(model_folders: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(model_folders.detector / "config.py", tmp_path / "base.py")
    (source / "child.py").write_text("_base_ = ['../base.py']\nmodel = dict(test_cfg=dict(max_per_img=7))\n")
    shutil.copy(model_folders.detector / "weights.pth", source)
    (source / "model_metadata.json").write_text('{"classes": ["a", "b", "c", "d"]}')
    _stage(DETECTORS.files(source), tmp_path / "weights" / "detector")
    (tmp_path / "base.py").unlink()
    moved = (tmp_path / "weights").rename(tmp_path / "moved")
    model = MlflowModel(moved, Settings(device="cpu"))  # type: ignore[call-arg]
    try:
        assert model.class_names == ("a", "b", "c", "d")
        (boxes,) = model.predict(pandas.DataFrame({"image": [picture(1)]}), {"score_threshold": 0.0})["boxes"]
        assert len(boxes) == 7
    finally:
        model.close()


def test_of_the_segmenters_files_those_are_taken_that_are_read(model_folders: Any, tmp_path: Path) -> None:
    _stage(SEGMENTERS.files(model_folders.segmenter), tmp_path / "whole")
    assert {file.name for file in (tmp_path / "whole").iterdir()} == {"config.json", "model.safetensors"}

    SamModel.from_pretrained(model_folders.segmenter).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    (tmp_path / "shards" / "tf_model.h5").write_bytes(b"of no use")
    _stage(SEGMENTERS.files(tmp_path / "shards"), tmp_path / "staged")
    names = {file.name for file in (tmp_path / "staged").iterdir()}
    assert names == {file.name for file in (tmp_path / "shards").iterdir()} - {"tf_model.h5"}
    assert len(names) > 3


def test_the_command_writes_a_folder_by_names_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    for name in ("uv.lock", "pyproject.toml"):  # a project of somebody else's, which MLflow would take along
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert main(["export", "mlflow", "--detector", "demo-yolof", "--segmenter", "demo-sam", "--out", str(out)]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "classes: can, carton, milk_bottle, water_bottle" in said.out
    assert f"mlflow models serve --model-uri {out}" in said.out
    assert {path.name for path in out.iterdir()} == {
        "MLmodel", "code", "conda.yaml", "data", "input_example.json", "python_env.yaml", "requirements.txt",
        "serving_input_example.json",
    }  # fmt: skip
    info = mlflow.models.get_model_info(str(out))
    assert info.metadata["detector"] == "demo-yolof"
    assert info.metadata["classes"] == ["can", "carton", "milk_bottle", "water_bottle"]

    assert main(["export", "mlflow", "--detector", "demo-yolof", "--out", str(out)]) == 1
    assert re.fullmatch(r"box2mask: .*: expected a new or an empty folder.*\n", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "box2mask: name what to export: --detector, --segmenter or both\n"),
        (["--detector", "nowhere"], "box2mask: --detector nowhere: there is no such folder, .*\n"),
        (["--segmenter", str(REPOSITORY / "docs")], "box2mask: .*docs: looked for a config.json .*\n"),
        (["--detector", str(REPOSITORY / "docs")], "box2mask: .*docs: looked for one config .*\n"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_sentence(
    arguments: list[str], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "mlflow", *arguments, "--out", str(tmp_path / "out")]) != 0
    said = capfd.readouterr().err
    assert re.fullmatch(says, said), said
    assert not any(tmp_path.iterdir())


def test_without_mlflow_it_says_what_to_install(
    model_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    choice = Choice(Chosen(model_folders.detector, "d", False), None)
    with pytest.raises(ExportError, match=r"\.\[mlflow\]"):
        export_mlflow(choice, tmp_path / "out", Settings(device="cpu"))  # type: ignore[call-arg]
