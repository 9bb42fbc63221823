"""What docs/configuration.md says of settings: in groups, each with its bounds, default, meaning and an example."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tools.fields import allowed
from tools.markdown import code, table
from worker.settings import Settings


@dataclass(frozen=True)
class Group:
    """Settings that belong together.

    Attributes:
        examples: name -> a value as it is written in the console, or an empty text where none helps.
    """

    title: str
    examples: Mapping[str, str] = field(default_factory=dict)


GROUPS = (
    Group(
        "The model",
        {
            "MODEL_NAME": "stabilityai/stable-diffusion-xl-base-1.0",
            "MODEL_REVISION": "main",
            "MODEL_VARIANT": "fp16",
            "TRANSFORMER_NAME": "/runpod-volume/models/flux1-dev-Q4_0.gguf",
            "VAE_NAME": "madebyollin/sdxl-vae-fp16-fix",
            "REFINER_NAME": "stabilityai/stable-diffusion-xl-refiner-1.0",
            "HF_TOKEN": "{{ RUNPOD_SECRET_hf_token }}",
            "CIVITAI_TOKEN": "{{ RUNPOD_SECRET_civitai_token }}",
        },
    ),
    Group(
        "Beside the model",
        {
            "LORA_DIR": "/runpod-volume/loras",
            "LORA_REPOS": "org/name/details.safetensors, org/other",
            "CONTROLNETS": "canny=lllyasviel/sd-controlnet-canny, depth=/runpod-volume/depth",
            "IP_ADAPTER": "h94/IP-Adapter/models/ip-adapter_sd15.safetensors",
            "IP_ADAPTER_ENCODER": "h94/IP-Adapter/models/image_encoder",
            "EMBEDDINGS_DIR": "/runpod-volume/embeddings",
            "EMBEDDING_REPOS": "org/name/sketchy.safetensors",
        },
    ),
    Group(
        "What jobs get that name nothing",
        {
            "DEFAULT_SIZE": "832x1216",
            "DEFAULT_STEPS": "30",
            "DEFAULT_GUIDANCE_SCALE": "6",
            "DEFAULT_SCHEDULER": "DPM++ 2M Karras",
            "DEFAULT_NEGATIVE_PROMPT": "blurry, low quality",
            "PROMPT_SYNTAX": "plain",
        },
    ),
    Group(
        "What jobs may ask for",
        {
            "MAX_PIXELS": "1048576",
            "MAX_STEPS": "50",
            "MAX_IMAGES": "4",
            "JOB_TIMEOUT_S": "120",
            "SAFETY_CHECKER": "off",
            "ALLOWED_IMAGE_HOSTS": "images.example.com, *.example.org",
            "MAX_INPUT_BYTES": "10000000",
        },
    ),
    Group(
        "Memory and speed",
        {
            "QUANTIZE": "4bit",
            "OFFLOAD": "model",
            "DTYPE": "bfloat16",
            "ACCELERATION": "compile",
            "COMPILE_CACHE": "/runpod-volume/compiled",
            "WARM_UP": "off",
            "MAX_BATCH": "4",
            "JOBS_AT_ONCE": "4",
            "GPUS": "2",
            "GPUS_PER_PICTURE": "2",
        },
    ),
    Group(
        "Where pictures go, and what they cost",
        {
            "BUCKET_ENDPOINT_URL": "https://pictures.s3.eu-west-1.amazonaws.com",
            "BUCKET_ACCESS_KEY_ID": "{{ RUNPOD_SECRET_bucket_id }}",
            "BUCKET_SECRET_ACCESS_KEY": "{{ RUNPOD_SECRET_bucket_secret }}",
            "BUCKET_NAME": "pictures",
            "BUCKET_REGION": "eu-west-1",
            "ALLOWED_BUCKET_HOSTS": "*.r2.cloudflarestorage.com",
            "MAX_RESULT_BYTES": "20000000",
            "PRICE_PER_SECOND": "0.00031",
        },
    ),
)


def write_settings() -> str:
    """A heading and a table for each group.

    Raises:
        SystemExit: a setting is in no group, or a name is no setting.
    """
    shown = [name for group in GROUPS for name in group.examples]
    names = [name.upper() for name in Settings.model_fields]
    if amiss := {*shown} ^ {*names}:
        raise SystemExit(f"GROUPS of tools/configuration.py and the settings differ in {', '.join(sorted(amiss))}")
    return "\n\n".join(f"## {group.title}\n\n{table(*setting_rows(group))}" for group in GROUPS)


def setting_rows(group: Group) -> Iterator[tuple[str, ...]]:
    """The environment variables of a group."""
    yield "variable", "takes", "default", "meaning", "example"
    properties = Settings.model_json_schema(by_alias=False)["properties"]
    for variable, example in group.examples.items():
        name = variable.lower()
        setting = Settings.model_fields[name]
        default = "" if setting.default is None else code(setting.default)
        # Descriptions link as the README does; this page is in docs/ itself.
        meaning = re.sub(r"\]\(docs/", "](", setting.description or "")
        yield code(variable), allowed(properties[name]), default, meaning, code(example)
