"""The environment -> Settings. Beside `environment`, the only module that reads environment variables.

Empty values count as unset, because RunPod's Hub passes every option that a user left blank as an empty string.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from worker.environment import list_refused
from worker.errors import SettingsError
from worker.files import UnreadableError, check_folder, exists
from worker.setting_names import suggest_settings
from worker.text import hide_credentials

EMBEDDED_MODEL = Path(__file__).parent.parent / "models" / "shapes"
EMBEDDED_LORAS = EMBEDDED_MODEL.parent / "loras"
VOLUME = Path("/runpod-volume")  # where the platform mounts an endpoint's network volume

MAX_BATCH = 64  # pictures drawn at once
MAX_GPUS = 64
MAX_JOB_TIMEOUT_S = 31_536_000  # a year; what is far longer, the system's clock cannot wait for

_HOST = r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
_HOST_LIST = rf"^\s*{_HOST}(\s*,\s*{_HOST})*\s*$"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(/\w[^/]*)*")
_SIZE = re.compile(r"([0-9]{1,5})\s*[xX]\s*([0-9]{1,5})")
_ADDRESS = re.compile(r"https?://|urn:air:|(www\.)?(huggingface\.co|hf\.co|civitai\.(com|red|green))/", re.IGNORECASE)
_BUCKET = ("bucket_endpoint_url", "bucket_access_key_id", "bucket_secret_access_key")  # without which there is none


def split_list(setting: str | None) -> tuple[str, ...]:
    """The entries of a list with commas between."""
    return tuple(entry.strip() for entry in (setting or "").split(",") if entry.strip())


def _refuse(text: str, entry: str = "") -> PydanticCustomError:
    """The error of a setting of which this is allowed, and this entry is not."""
    entry = entry and f"; not {hide_credentials(entry)[:80]!r}"
    return PydanticCustomError("setting", "should {text}{entry}", {"text": text, "entry": entry})


def _check_folder(path: Path) -> Path:
    try:
        if exists(path):
            check_folder(path)
            return path
    except UnreadableError as error:
        raise _refuse(f"be an existing folder; it {error.reason}") from None
    raise _refuse("be an existing folder")


def _check_repositories(setting: str) -> str:
    for entry in split_list(setting):
        file = entry.split("/")[2:]
        if _ADDRESS.match(entry):  # read where it is known what addresses there are
            continue
        if not _REPOSITORY.fullmatch(entry) or (file and not file[-1].endswith(".safetensors")):
            allowed = "be hub ids like org/name or org/name/file.safetensors, or addresses of such a file on "
            raise _refuse(f"{allowed}huggingface.co or civitai.com, with commas between", entry)
    return setting


def _check_places(setting: str) -> str:
    names = set()
    for entry in split_list(setting):
        name, equals, place = (part.strip() for part in entry.partition("="))
        if not (name and equals and place) or _ADDRESS.match(name):
            raise _refuse("be name=folder or name=org/name or name=file.safetensors, with commas between", entry)
        if name in names:
            raise _refuse("have one place for each name", entry)
        names.add(name)
    return setting


def _check_gpus(setting: str) -> str:
    if setting != "auto" and not (setting.isdecimal() and 1 <= int(setting) <= MAX_GPUS):
        raise _refuse(f"be auto, or a number from 1 to {MAX_GPUS}")
    return setting


def _check_max_batch(setting: str) -> str:
    if setting != "auto" and not (setting.isdecimal() and 1 <= int(setting) <= MAX_BATCH):
        raise _refuse(f"be auto, or a number from 1 to {MAX_BATCH}")
    return setting


def _check_size(setting: str) -> str:
    if not (found := _SIZE.fullmatch(setting)) or any(not 64 <= int(side) <= 8192 for side in found.groups()):
        raise _refuse("be width and height like 832x1216, in pixels, each 64 to 8192")
    return setting


def _check_letters(secret: SecretStr) -> SecretStr:
    """A secret goes into headers and signatures, which have no place for half a letter, a blank or a line's end."""
    if not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise _refuse("be letters, digits and signs of ASCII, without blanks and line ends inside")
    return secret


_Folder = Annotated[Path, AfterValidator(_check_folder)]
_Secret = Annotated[SecretStr, AfterValidator(_check_letters)]


class _Environment(EnvSettingsSource):
    """The environment, without the blanks and line ends that come with what people paste; what is blank is not set."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        trimmed = {name: (value or "").strip() for name, value in self.env_vars.items()}
        self.env_vars = {name: value for name, value in trimmed.items() if value}


class Settings(BaseSettings):
    """What the endpoint's owner decides, one field for each environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    model_name: str | None = Field(
        None,
        description="folder, `.safetensors` file or hub id of the model, or its address on huggingface.co or "
        "civitai.com",
    )
    model_revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    model_variant: str | None = Field(
        None, description="weight files to prefer, for example `fp16`; if left out, plain ones where there are some"
    )
    refiner_name: str | None = Field(
        None, description="folder, `.safetensors` file, hub id or address of an SDXL refiner"
    )
    vae_name: str | None = Field(
        None, description="folder, `.safetensors` file, hub id or address of a VAE to use instead of the model's own"
    )
    transformer_name: str | None = Field(
        None,
        description="`.safetensors` or `.gguf` file, hub id of one (`org/name/file.gguf`) or address, of a denoiser to "
        "use instead of the own one of `MODEL_NAME`, which is then not read",
    )
    hf_token: _Secret | None = Field(
        None,
        validation_alias=AliasChoices("HF_TOKEN", "HF_AUTH_TOKEN"),
        description="token for gated or private hub models; the older name `HF_AUTH_TOKEN` works too",
    )
    civitai_token: _Secret | None = Field(
        None, description="API key of an account on Civitai, for downloads that ask for one"
    )
    default_scheduler: str | None = Field(None, description="scheduler for jobs that name none")
    default_steps: int | None = Field(None, ge=1, description="denoising steps of jobs that name none")
    default_guidance_scale: float | None = Field(
        None, ge=0, le=50, allow_inf_nan=False, description="guidance scale of jobs that name none"
    )
    default_negative_prompt: str | None = Field(
        None, max_length=5_000, description="negative prompt of jobs that bring none; an empty one in a job is one"
    )
    default_size: Annotated[str, AfterValidator(_check_size)] | None = Field(
        None, description="width and height, for example `832x1216`, of jobs that name none and start from no picture"
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field("auto", description="number format of the weights")
    offload: Literal["auto", "none", "model", "group"] = Field(
        "auto", description="where weights wait: on the device, or in main memory by component or by layer"
    )
    quantize: Literal["none", "8bit", "4bit", "fp8"] = Field(
        "none",
        description="bits for the weights of the denoiser and of large text encoders; 8bit works without `OFFLOAD` "
        "only, fp8 with transformers only",
    )
    lora_dir: _Folder | None = Field(
        None,
        description="folder of LoRAs that jobs may name, by their path in it; the embedded model has its own",
    )
    lora_repos: Annotated[str, AfterValidator(_check_repositories)] | None = Field(
        None,
        description="hub ids of LoRAs that jobs may name, `org/name/file.safetensors`, or addresses on huggingface.co "
        "or civitai.com, with commas between",
    )
    controlnets: Annotated[str, AfterValidator(_check_places)] | None = Field(
        None,
        description="ControlNets that jobs may name: `canny=org/name, depth=/a/folder, pose=/a/file.safetensors`, or "
        "their addresses, with commas between",
    )
    ip_adapter: str | None = Field(
        None, description="weights of an IP-Adapter: file, `org/name/folder/file.safetensors`, or address"
    )
    ip_adapter_encoder: str | None = Field(
        None,
        description="its image encoder: folder, or `org/name/folder`; `image_encoder` beside the weights if left out",
    )
    embeddings_dir: _Folder | None = Field(
        None, description="folder of textual inversion embeddings; each file's name is a word for prompts"
    )
    embedding_repos: Annotated[str, AfterValidator(_check_repositories)] | None = Field(
        None,
        description="more of them: `org/name/file.safetensors`, or addresses on huggingface.co or civitai.com, with "
        "commas between",
    )
    prompt_syntax: Literal["a1111", "plain"] = Field(
        "a1111", description="how prompts are read: as AUTOMATIC1111's web UI reads them, or as text and nothing else"
    )
    safety_checker: Literal["on", "off"] = Field("on", description="run the safety checker where the model has one")
    max_pixels: int | None = Field(
        None, ge=64 * 64, description="width times height a job may ask for, and gets if it asks for no size"
    )
    max_steps: int | None = Field(None, ge=1, le=10_000, description="steps a job may ask for")
    max_images: int | None = Field(None, ge=1, description="pictures a job may ask for")
    jobs_at_once: int = Field(
        1,
        ge=1,
        le=64,
        description="jobs that a worker takes at once; [more than one pays](docs/several-jobs.md) where jobs are short",
    )
    gpus: Annotated[str, AfterValidator(_check_gpus)] = Field(
        "auto",
        description="GPUs that draw, each with the whole model; `auto`: all that the worker has; "
        "[when it pays](docs/several-gpus.md)",
    )
    gpus_per_picture: Literal["auto", "1", "2"] = Field(
        "auto",
        description="GPUs that share the steps of one guided picture; `auto`: two where one of them would have nothing "
        "to do, and that is faster",
    )
    acceleration: Literal["auto", "off", "graphs", "compile"] = Field(
        "auto",
        description="how passes run on a GPU: as written, by CUDA graphs, compiled, or `auto`, as written or by a "
        "graph, what is faster; [what it brings](docs/performance.md#what-makes-a-job-faster)",
    )
    compile_cache: Path | None = Field(
        None,
        description="folder for compiled code; left out: `compiled` on the network volume, if there is one",
    )
    warm_up: Literal["auto", "off"] = Field(
        "auto",
        description="`auto`: the GPU is warmed up while Python imports; with `ACCELERATION=compile` the model is "
        "compiled before the first job. `off`: no warm-up, and what is compiled is compiled between jobs",
    )
    max_batch: Annotated[str, AfterValidator(_check_max_batch)] = Field(
        "auto",
        description="pictures drawn at once; `auto`: by memory and by what is faster, on a CPU 1; "
        "[1 draws each to the bit as if alone](docs/several-jobs.md#drawn-at-once)",
    )
    job_timeout_s: float | None = Field(
        None,
        gt=0,
        le=MAX_JOB_TIMEOUT_S,
        allow_inf_nan=False,
        description="seconds after which a job is stopped with an error",
    )
    price_per_second: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="what a second of a worker costs; answers then hold the `cost` of the job's own time",
    )
    max_result_bytes: int = Field(
        10_000_000, ge=1_000, description="largest answer in bytes of JSON; RunPod's limit is 10 MB for /run"
    )
    allowed_image_hosts: str | None = Field(
        None,
        pattern=_HOST_LIST,
        description="hosts that jobs may load pictures from, with commas between, `*.example.com` for all below one; "
        "any public host if left out",
    )
    max_input_bytes: int = Field(20_000_000, ge=1_000, description="largest picture file that a job may name, in bytes")
    allowed_bucket_hosts: str | None = Field(
        None,
        pattern=_HOST_LIST,
        description="hosts where the bucket of `s3Config` may be, with commas between; any public one if left out",
    )
    bucket_endpoint_url: str | None = Field(
        None, pattern="^https?://", description="S3 endpoint, with the bucket in its host or path or without"
    )
    bucket_access_key_id: _Secret | None = Field(None, description="S3 access key")
    bucket_secret_access_key: _Secret | None = Field(None, description="S3 secret key")
    bucket_name: str | None = Field(None, description="S3 bucket, where the URL names none")
    bucket_region: str | None = Field(
        None, pattern="^[A-Za-z0-9-]+$", description="region that signatures are for; read from the URL if left out"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given by name, before the environment."""
        return init_settings, _Environment(settings_cls)

    @property
    def may_be_packed(self) -> bool:
        """Whether the denoiser comes in a GGUF file."""
        return ".gguf" in (self.transformer_name or "").lower()

    @property
    def default_sides(self) -> tuple[int, int] | None:
        """Width and height of `default_size`, in pixels."""
        found = _SIZE.fullmatch(self.default_size or "")
        return (int(found[1]), int(found[2])) if found else None

    @property
    def image_hosts(self) -> tuple[str, ...]:
        """The hosts that jobs may load pictures from; empty for any public one."""
        return split_list(self.allowed_image_hosts)

    @property
    def pictures_at_once(self) -> int | None:
        """How many pictures are drawn at once, as the owner wants it; None for what is fastest."""
        return None if self.max_batch == "auto" else int(self.max_batch)

    @property
    def gpus_at_most(self) -> int | None:
        """How many devices draw, as the owner wants it; None for all that are there."""
        return None if self.gpus == "auto" else int(self.gpus)

    @property
    def bucket_hosts(self) -> tuple[str, ...]:
        """The hosts that a job's own bucket may be at; empty for any public one."""
        return split_list(self.allowed_bucket_hosts)

    @property
    def bucket_gap(self) -> str | None:
        """What is missing to the bucket, if something is set of it and something is not."""
        names = [name for name in Settings.model_fields if name.startswith("bucket_")]
        missing = [name for name in _BUCKET if getattr(self, name) is None]
        if not missing or all(getattr(self, name) is None for name in names):
            return None
        needed, left = (" and ".join(name.upper() for name in some) for some in (_BUCKET, missing))
        return f"{left} not set; a bucket needs {needed}"


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable's value cannot be used; one line names each, what came and what is allowed.
    """
    refused = list_refused()
    try:
        settings = Settings()
    except ValidationError as error:
        problems = error.errors()
    else:
        if refused:
            raise SettingsError("; ".join(refused))
        return settings
    wrong = [str(problem["loc"][0]).lower() for problem in problems]
    rest = Settings(**{name: Settings.model_fields[name].default for name in wrong})
    gap = None if any(name.startswith("bucket_") for name in wrong) else rest.bucket_gap
    raise SettingsError("; ".join([*map(_explain, problems), *filter(None, [gap]), *refused]))


def peek_settings() -> Settings | None:
    """The same; None where they cannot be used, for those that come before whoever tells of it."""
    try:
        return read_settings()
    except SettingsError:
        return None


def list_mistaken_names() -> list[str]:
    """A sentence for each variable whose name is like a setting's, and is none; never what it holds."""
    aliases = (field.validation_alias for field in Settings.model_fields.values())
    spelled = [str(choice) for alias in aliases if isinstance(alias, AliasChoices) for choice in alias.choices]
    names = [*(name.upper() for name in Settings.model_fields), *spelled]
    given = [name for name, value in os.environ.items() if value.strip()]
    meant = suggest_settings(given, names)
    return [f"{name} is not a setting; did you mean {setting}?" for name, setting in meant.items()]


def _explain(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0]).upper()
    if name == "HF_TOKEN" and not os.environ.get(name, "").strip():
        name = "HF_AUTH_TOKEN"
    secret = any(word in name for word in ("TOKEN", "KEY"))
    came = "a secret" if secret else repr(hide_credentials(str(problem["input"]))[:80])
    return f"{name}: got {came}; {problem['msg']}"
