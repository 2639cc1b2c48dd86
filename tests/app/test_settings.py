"""Settings come from the environment, once, and a wrong one is told by its name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, SettingsError, environment_name

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BOX2MASK_", "AZUREML_", "OTEL_", "HF_")):
            monkeypatch.delenv(name)


def test_the_defaults_serve_on_azures_port_in_the_model_cards_form() -> None:
    settings = Settings.from_environment()
    assert (settings.host, settings.port) == ("0.0.0.0", 5001)
    assert (settings.detector, settings.segmenter, settings.device, settings.dtype) == (
        "auto",
        "auto",
        "auto",
        "auto",
    )
    assert (settings.response_schema, settings.channel_order) == ("card", "bgr")
    assert settings.azureml_model_dir is None


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOX2MASK_PORT", "8080")
    monkeypatch.setenv("BOX2MASK_RESPONSE_SCHEMA", "live")
    monkeypatch.setenv("BOX2MASK_IMAGE_URLS", "off")
    monkeypatch.setenv("BOX2MASK_MAX_IMAGE_MB", "1.5")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    settings = Settings.from_environment()
    assert (settings.port, settings.response_schema, settings.image_urls) == (8080, "live", "off")
    assert (settings.max_image_mb, settings.azureml_model_dir) == (1.5, tmp_path)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX2MASK_PORT", "")
    monkeypatch.setenv("AZUREML_MODEL_DIR", "")
    settings = Settings.from_environment()
    assert (settings.port, settings.azureml_model_dir) == (5001, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BOX2MASK_PORT", "http", "BOX2MASK_PORT: Input should be a valid integer"),
        ("BOX2MASK_PORT", "65536", "BOX2MASK_PORT: Input should be less than or equal to 65535, got '65536'"),
        (
            "BOX2MASK_DTYPE",
            "int8",
            "BOX2MASK_DTYPE: Input should be 'auto', 'float32', 'bfloat16' or 'float16', got 'int8'",
        ),
        ("BOX2MASK_RESPONSE_SCHEMA", "azure", "BOX2MASK_RESPONSE_SCHEMA: Input should be 'card' or 'live'"),
        ("BOX2MASK_CHANNEL_ORDER", "grb", "BOX2MASK_CHANNEL_ORDER: Input should be 'bgr' or 'rgb', got 'grb'"),
        ("BOX2MASK_IMAGE_URLS", "true", "BOX2MASK_IMAGE_URLS: Input should be 'off', 'public' or 'any', got 'true'"),
        ("BOX2MASK_MAX_ROWS", "0", "BOX2MASK_MAX_ROWS: Input should be greater than 0, got '0'"),
        ("BOX2MASK_WORKERS", "-1", "BOX2MASK_WORKERS: Input should be greater than or equal to 0, got '-1'"),
        ("BOX2MASK_LOG_LEVEL", "loud", "BOX2MASK_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}"):
        Settings.from_environment()


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX2MASK_PORT", "-1")
    monkeypatch.setenv("BOX2MASK_DTYPE", "int8")
    with pytest.raises(SettingsError, match="BOX2MASK_PORT.*; BOX2MASK_DTYPE"):
        Settings.from_environment()


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX2MASK_PROT", "5001")
    with pytest.raises(SettingsError, match="^BOX2MASK_PROT: there is no such setting$"):
        Settings.from_environment()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings.from_environment().port = 1  # type: ignore[misc]


def test_the_document_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(
        r"^\| `((?:BOX2MASK|AZUREML|OTEL|HF)_\w+)` \| ([^|]*?) \| ([^|]+?) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert sorted(name for name, _, _ in rows) == sorted(environment_name(field) for field in Settings.model_fields)
    listed = {name: default.strip("`") for name, default, _ in rows}
    meanings = {name: meaning for name, _, meaning in rows}
    assert meanings == {environment_name(field): info.description for field, info in Settings.model_fields.items()}
    for field, info in Settings.model_fields.items():
        if info.default is not None:
            default = str(info.default).lower() if isinstance(info.default, bool) else f"{info.default}"
            assert listed[environment_name(field)].removesuffix(".0") == default.removesuffix(".0"), field
