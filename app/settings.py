"""Every setting of the service, read from the environment once. The only module that reads the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "BOX2MASK_"


class SettingsError(ValueError):
    """A setting in the environment that cannot be used; names it, and what it may be."""


class Settings(BaseSettings):
    """The service's settings: field `port` is the environment's `BOX2MASK_PORT`, and so on."""

    # An empty variable counts as none: it is how a container's settings are left out.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", populate_by_name=True
    )

    host: str = Field("0.0.0.0", description="Address to listen on")
    port: int = Field(5001, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    detector: str = Field(
        "auto",
        description="Detector folder, or a name that `box2mask weights list` shows, or `none`; `auto` searches "
        "`AZUREML_MODEL_DIR` if that is set, else takes the pulled weights, else the demo weights",
    )
    segmenter: str = Field("auto", description="SAM folder, name or `none`; `auto` as for the detector")
    weights_dir: Path | None = Field(
        None,
        description="Folder of the downloaded weights, for every command; unset, `weights/` of the repository, or, if "
        "box2mask was installed by pip, `box2mask/weights` in the user's data folder",
    )
    device: str = Field(
        "auto",
        description="`cpu`, `cuda`, `cuda:1`, or several, as in `cuda:0,cuda:1`; `auto` takes a GPU where there is one",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers the networks compute in: `float32`, `bfloat16` or `float16`; `auto` takes `bfloat16` "
        "where the device multiplies it natively (GPUs; processors with AMX or AVX512-BF16), else `float32`",
    )
    fast: bool = Field(
        True,
        description="Whether networks and masks take the fast paths; `false` runs them as published, and clicks wait "
        "for encodes",
    )
    embedding_cache_mb: float = Field(
        512.0,
        ge=0,
        description="Memory for embeddings of images seen before, on the device, for all devices together, in MB (2^20 "
        "bytes); 0 keeps none",
    )
    embedding_cache_dir: Path | None = Field(
        None, description="Folder for embeddings that survive a restart; none are written unless it is set"
    )
    embedding_disk_mb: float = Field(4096.0, ge=0, description="Most that folder may hold, in MB (2^20 bytes)")
    channel_order: Literal["bgr", "rgb"] = Field(
        "bgr", description="How images reach the detector; `rgb` repeats the swap of Azure's deployed wrapper"
    )
    response_schema: Literal["card", "live"] = Field(
        "card", description="SAM's answer: `card` as the model card documents it, `live` as Azure's endpoint sends it"
    )
    api_keys: str | None = Field(
        None,
        repr=False,
        description="Keys of which a request must bring one, as `Authorization: Bearer <key>`, separated by commas or "
        "spaces; with none here and none in a file, everybody may ask",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File with a key a line besides; it is read again when it changes, which is how keys are rotated",
    )
    cors_origins: str | None = Field(
        None,
        description="Web pages' origins that may use the service from a browser, such as `https://labels.example`, "
        "separated by commas or spaces; `*` means all",
    )
    image_urls: Literal["off", "public", "any"] = Field(
        "public",
        description="Which http(s) URLs images may be given as: `off`, none; `public`, those whose host has public "
        "addresses only, so that nobody reaches an inner network through the service; `any`",
    )
    url_timeout_s: float = Field(10.0, gt=0, description="Seconds in which an image URL must have answered in full")
    max_image_mb: float = Field(64.0, gt=0, description="Largest image file, in MB (2^20 bytes)")
    max_image_pixels: int = Field(100_000_000, gt=0, description="Largest width x height of an image")
    image_store_mb: float = Field(
        128.0,
        ge=0,
        description="Memory for images sent to `POST /images`, which requests then name by their hash, in MB (2^20 "
        "bytes); 0 keeps none",
    )
    playground: bool = Field(True, description="Whether there is a web page to try the models at `/playground`")
    max_body_mb: float = Field(256.0, gt=0, description="Largest request body, in MB (2^20 bytes)")
    max_rows: int = Field(256, gt=0, description="Most rows in a request")
    max_prompts: int = Field(1024, gt=0, description="Most prompts in a row")
    max_bodies_mb: float = Field(
        1024.0,
        gt=0,
        description="Memory for the bodies of all requests together, from first byte to answer, in MB (2^20 bytes); "
        "more are answered 429. As much again for answers that clients have not taken; then the oldest are dropped",
    )
    max_mask_pixels: int = Field(
        50_000_000_000,
        gt=0,
        description="Most pixels in all masks of a request: prompts x masks x width x height; more is a 400 before "
        "they are made",
    )
    max_response_mb: float = Field(
        256.0, gt=0, description="Largest masks of a response, in MB (2^20 bytes); more is a 400 as soon as it is known"
    )
    max_requests: int = Field(64, gt=0, description="Requests in work or waiting; more are answered 429")
    max_requests_per_key: int = Field(
        0, ge=0, description="The same for a single API key; 0: half of them, and all of them where there is one key"
    )
    request_timeout_s: float = Field(
        600.0, gt=0, description="Seconds in which a request must be answered; then its work is dropped (504)"
    )
    client_timeout_s: float = Field(
        120.0,
        gt=0,
        description="Seconds in which a request's body must have arrived (408), and a connection's next request begun; "
        "who takes none of an answer for as long is cut off",
    )
    max_connections: int = Field(
        4096, gt=0, description="Most open connections; the one that has been idle for longest makes room for a new one"
    )
    workers: int = Field(0, ge=0, description="Threads that decode images and encode masks; 0: one per processor")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged")
    log_format: Literal["text", "json"] = Field(
        "text", description="How it is logged: `text` for people, `json` for machines, an object a line"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of its own for `/metrics`, 0 for a free one; unset, `/metrics` is on the service's port",
    )
    otel: bool | None = Field(
        None,
        description="Whether requests are traced with OpenTelemetry (the extra `otel`); unset, they are if "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` is set",
    )
    otlp_endpoint: str | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where OpenTelemetry's SDK sends traces; this and its other variables, it reads itself",
    )
    azureml_model_dir: Path | None = Field(
        None, validation_alias="AZUREML_MODEL_DIR", description="Where AzureML mounts the model; set by AzureML"
    )

    @field_validator("api_keys")
    @classmethod
    def _are_keys(cls, value: str | None) -> str | None:
        # Such as "$OLD,$NEW" with neither of them set: not what stands for a service without keys.
        if value is not None and not _listed(value):
            raise ValueError("expected keys, separated by commas or spaces; unset it for a service without keys")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        for origin in _listed(value):
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise ValueError("expected origins such as https://labels.example, or *")
        return value

    @property
    def keys(self) -> list[str]:
        """What `api_keys` lists."""
        return _listed(self.api_keys)

    @property
    def origins(self) -> list[str]:
        """What `cors_origins` lists."""
        return _listed(self.cors_origins)

    @property
    def devices(self) -> list[str]:
        """The devices that `device` names, at least one."""
        return [name.strip() for name in self.device.split(",") if name.strip()] or ["auto"]

    @property
    def traces(self) -> bool:
        """Whether requests are traced."""
        return self.otlp_endpoint is not None if self.otel is None else self.otel

    @classmethod
    def from_environment(cls) -> Settings:
        """Read and validate. Raises SettingsError that names each variable at fault, misspelt ones too."""
        known = {environment_name(field) for field in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
        if unknown:
            raise SettingsError("; ".join(f"{name}: there is no such setting" for name in unknown))
        try:
            return cls()  # type: ignore[call-arg]
        except ValidationError as error:
            faults = [f"{environment_name(str(e['loc'][0]))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
            raise SettingsError("; ".join(faults)) from error


def _listed(value: str | None) -> list[str]:
    """What a setting lists, separated by commas or white space."""
    return [one for one in re.split(r"[\s,]+", value or "") if one]


def environment_name(field: str) -> str:
    """The environment variable of a field: "port" -> "BOX2MASK_PORT"."""
    alias = Settings.model_fields[field].validation_alias if field in Settings.model_fields else None
    return alias if isinstance(alias, str) else field if field.isupper() else f"{PREFIX}{field.upper()}"
