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
    port: int = Field(5001, ge=0, le=65535, description="Port to listen on; 0 means any free port")
    detector: str = Field(
        "auto",
        description=(
            "Detector folder, or a name from `box2mask weights list`, or `none`; `auto` searches "
            "`AZUREML_MODEL_DIR` if that is set, else the downloaded weights, else the demo weights"
        ),
    )
    segmenter: str = Field("auto", description="The same for SAM")
    weights_dir: Path | None = Field(
        None,
        description=(
            "Folder of the downloaded weights, for every command; unset, `weights/` of the repository, or, if"
            " box2mask was installed by pip, `box2mask/weights` in the user's data folder"
        ),
    )
    device: str = Field(
        "auto",
        description="`cpu`, `cuda`, `cuda:1`, or several, such as `cuda:0,cuda:1`; `auto` uses a GPU if there is one",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description=(
            "Number format of the networks: `float32`, `bfloat16` or `float16`; `auto` uses `bfloat16` where "
            "the device multiplies it natively (GPUs; processors with AMX or AVX512-BF16), and `float32` "
            "elsewhere"
        ),
    )
    fast: bool = Field(
        True,
        description=(
            "Whether networks and masks use the fast code paths; `false` runs the networks as published, and "
            "clicks then wait for encodes"
        ),
    )
    embedding_cache_mb: float = Field(
        512.0,
        ge=0,
        description=(
            "Size of the embedding cache in device memory, for all devices together, in MB (2^20 bytes); 0 "
            "switches the cache off"
        ),
    )
    embedding_cache_dir: Path | None = Field(
        None,
        description="Folder for embeddings that survive a restart; if it is not set, no embedding is written to disk",
    )
    embedding_disk_mb: float = Field(4096.0, ge=0, description="Maximum size of that folder, in MB (2^20 bytes)")
    texts: str | None = Field(
        None,
        description=(
            "What an open-vocabulary detector finds where a request has no `params.texts`, separated by commas, such "
            "as `can,milk carton`; other detectors pass it over"
        ),
    )
    channel_order: Literal["bgr", "rgb"] = Field(
        "bgr",
        description=(
            "Channel order of the input of an MMDetection detector; `rgb` reproduces the swapped channels of Azure's "
            "wrapper"
        ),
    )
    response_schema: Literal["card", "live"] = Field(
        "card", description="Form of SAM's answer: `card` as in the model card, `live` as from Azure's endpoint"
    )
    api_keys: str | None = Field(
        None,
        repr=False,
        description=(
            "API keys, separated by commas or spaces; a request needs one of them as `Authorization: Bearer "
            "<key>`. Without keys here or in a file, no request needs a key"
        ),
    )
    api_keys_file: Path | None = Field(
        None,
        description=(
            "File with more API keys, one per line; the service reads it again when it changes, so keys can be rotated"
        ),
    )
    admin_key: str | None = Field(
        None,
        repr=False,
        description=(
            "Key for `POST /models/reload`, as `Authorization: Bearer <key>`. Without one, the service loads models "
            "anew only on SIGHUP"
        ),
    )
    cors_origins: str | None = Field(
        None,
        description=(
            "Origins of web pages that may use the service from a browser, such as `https://labels.example`, "
            "separated by commas or spaces; `*` means all"
        ),
    )
    image_urls: Literal["off", "public", "any"] = Field(
        "public",
        description=(
            "Which http(s) image URLs the service fetches: `off`, none; `public`, only from hosts whose "
            "addresses are all public, so that nobody reaches an internal network through the service; `any`,"
            " all"
        ),
    )
    url_timeout_s: float = Field(10.0, gt=0, description="Seconds for the complete download of an image URL")
    label_studio_url: str | None = Field(
        None,
        description=(
            "Address of your Label Studio, such as `http://localhost:8080`; images of its tasks are fetched from "
            "there, whatever `BOX2MASK_IMAGE_URLS` says"
        ),
    )
    label_studio_token: str | None = Field(
        None,
        repr=False,
        description=(
            "Token of your account at that Label Studio, personal or legacy; it is sent nowhere else, also not on "
            "redirects"
        ),
    )
    label_studio_predict_s: float = Field(
        90.0,
        gt=0,
        description=(
            "Seconds for the pre-labels of one request of Label Studio; tasks that are not done by then are asked "
            "again the next time. Keep it below Label Studio's own `ML_TIMEOUT_PREDICT`, which is 100"
        ),
    )
    max_image_mb: float = Field(64.0, gt=0, description="Maximum size of an image file, in MB (2^20 bytes)")
    max_image_pixels: int = Field(100_000_000, gt=0, description="Maximum width x height of an image")
    image_store_mb: float = Field(
        128.0,
        ge=0,
        description="Memory for images sent to `POST /images`, in MB (2^20 bytes); 0 keeps none",
    )
    playground: bool = Field(True, description="Whether `/playground` has a web page where you can try the models")
    max_body_mb: float = Field(256.0, gt=0, description="Maximum size of a request body, in MB (2^20 bytes)")
    max_rows: int = Field(256, gt=0, description="Maximum number of rows in a request")
    max_prompts: int = Field(1024, gt=0, description="Maximum number of prompts in a row")
    max_bodies_mb: float = Field(
        1024.0,
        gt=0,
        description=(
            "Memory for the bodies of all requests together, from the first byte until the answer, in MB "
            "(2^20 bytes); requests beyond it get a 429. The same amount again is for answers that clients "
            "have not read yet; beyond it the oldest ones are dropped"
        ),
    )
    max_mask_pixels: int = Field(
        50_000_000_000,
        gt=0,
        description=(
            "Maximum number of pixels in all masks of a request: prompts x masks x width x height; a request "
            "for more gets a 400 before the masks are computed"
        ),
    )
    max_response_mb: float = Field(
        256.0,
        gt=0,
        description=(
            "Maximum size of the masks in a response, in MB (2^20 bytes); a request for more gets a 400 as "
            "soon as this is known"
        ),
    )
    max_requests: int = Field(
        64, gt=0, description="Maximum number of requests that run or wait; further ones get a 429"
    )
    max_requests_per_key: int = Field(
        0,
        ge=0,
        description=(
            "The same for one API key; 0 means half of `BOX2MASK_MAX_REQUESTS`, or all of them if there is only one key"
        ),
    )
    request_timeout_s: float = Field(
        600.0, gt=0, description="Seconds until a request must be answered; after that its work is dropped (504)"
    )
    client_timeout_s: float = Field(
        120.0,
        gt=0,
        description=(
            "Seconds for a request body to arrive (408), and for the next request on an open connection to "
            "begin; a client that reads nothing of its answer for so long is disconnected"
        ),
    )
    max_connections: int = Field(
        4096,
        gt=0,
        description=(
            "Maximum number of open connections; beyond it, the connection that has been idle for the longest"
            " time is closed"
        ),
    )
    ray_edges: int = Field(1, gt=0, description="With `serve --ray`: number of processes that take requests by HTTP")
    ray_min_replicas: int = Field(
        1, gt=0, description="With `serve --ray`: minimum number of replicas, which have the models"
    )
    ray_max_replicas: int = Field(
        0,
        ge=0,
        description=(
            "With `serve --ray`: maximum number of replicas; 0 means one for each GPU that the cluster has when the "
            "service starts, or the minimum if it has none"
        ),
    )
    ray_replica_requests: int = Field(
        8,
        gt=0,
        description=(
            "With `serve --ray`: number of requests in work that one replica is for; with more of them, further "
            "replicas are started"
        ),
    )
    ray_replica_gpus: float | None = Field(
        None,
        ge=0,
        description=(
            "With `serve --ray`: GPUs of a replica, such as 0.5; if it is not set, 1 where the cluster has GPUs, and 0 "
            "elsewhere"
        ),
    )
    ray_replica_cpus: float = Field(
        1.0, ge=0, description="With `serve --ray`: processors that Ray keeps for each replica"
    )
    workers: int = Field(
        0,
        ge=0,
        description="Number of threads in the pool that decodes images and encodes masks; 0 means one per processor",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log level: `debug`, `info`, `warning` or `error`"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log format: `text` for people, `json` for machines, with one object per line"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Separate port for `/metrics`, 0 means any free port; if it is not set, `/metrics` is on the service's port"
        ),
    )
    otel: bool | None = Field(
        None,
        description=(
            "Whether requests are traced with OpenTelemetry (the extra `otel`); if it is not set, they are "
            "traced when `OTEL_EXPORTER_OTLP_ENDPOINT` is set"
        ),
    )
    otlp_endpoint: str | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where OpenTelemetry's SDK sends traces; the SDK reads this and its other variables itself",
    )
    azureml_model_dir: Path | None = Field(
        None, validation_alias="AZUREML_MODEL_DIR", description="Where AzureML mounts the model; AzureML sets it"
    )
    hf_token: str | None = Field(
        None,
        validation_alias="HF_TOKEN",
        repr=False,
        description="Token of your account at Hugging Face, for `weights pull` of models with a licence to accept",
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

    @field_validator("label_studio_url")
    @classmethod
    def _is_a_server(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", value):
            raise ValueError("expected the address of a server, such as http://localhost:8080")
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
    def default_texts(self) -> tuple[str, ...]:
        """What `texts` lists, each once."""
        texts = (text.strip() for text in (self.texts or "").split(","))
        return tuple(dict.fromkeys(text for text in texts if text))

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
