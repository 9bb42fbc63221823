"""What a variable was probably meant to be: the setting whose name is like it, or that other workers call so."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from worker.nearest import find_nearest

NEAR = 0.9  # as difflib measures how like two names are; one letter more or less in a name of nine
# Of the platform and the driver, which have hundreds of names.
_FOREIGN = ("RUNPOD_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_", "PYTHON")
# What other workers, libraries and tools call the same.
ELSEWHERE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "MODEL_NAME": (
            *("MODEL", "MODEL_ID", "MODEL_PATH", "MODEL_REPO", "MODEL_REPO_ID", "HF_MODEL", "HF_MODEL_ID"),
            *("HF_MODEL_NAME", "HF_REPO", "HF_REPO_ID", "HUGGINGFACE_MODEL", "HUGGINGFACE_MODEL_ID"),
        ),
        "MODEL_REVISION": ("HF_REVISION",),
        "REFINER_NAME": ("REFINER", "REFINER_ID", "REFINER_MODEL", "REFINER_PATH"),
        "VAE_NAME": ("VAE", "VAE_ID", "VAE_MODEL", "VAE_PATH"),
        "TRANSFORMER_NAME": ("TRANSFORMER", "TRANSFORMER_PATH", "TRANSFORMER_FILE", "UNET_NAME", "DIFFUSION_MODEL"),
        "HF_TOKEN": (
            *("HUGGINGFACE_TOKEN", "HUGGING_FACE_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
            *("HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_API_KEY", "HF_API_TOKEN", "HF_API_KEY", "HF_ACCESS_TOKEN"),
        ),
        "CIVITAI_TOKEN": ("CIVITAI_API_TOKEN", "CIVITAI_API_KEY", "CIVITAI_KEY", "CIVIT_TOKEN", "CIVITAI_ACCESS_TOKEN"),
        "DEFAULT_SCHEDULER": ("SCHEDULER", "DEFAULT_SAMPLER"),
        "DEFAULT_STEPS": ("STEPS", "NUM_INFERENCE_STEPS", "INFERENCE_STEPS", "DEFAULT_NUM_INFERENCE_STEPS"),
        "DEFAULT_GUIDANCE_SCALE": ("GUIDANCE_SCALE", "CFG_SCALE", "DEFAULT_CFG_SCALE", "DEFAULT_GUIDANCE"),
        "DEFAULT_NEGATIVE_PROMPT": ("NEGATIVE_PROMPT",),
        "DEFAULT_SIZE": ("DEFAULT_RESOLUTION", "DEFAULT_WIDTH", "DEFAULT_HEIGHT", "IMAGE_SIZE"),
        "DTYPE": ("TORCH_DTYPE", "MODEL_DTYPE"),
        "OFFLOAD": ("CPU_OFFLOAD", "MODEL_CPU_OFFLOAD", "ENABLE_CPU_OFFLOAD", "ENABLE_MODEL_CPU_OFFLOAD"),
        "QUANTIZE": ("QUANTISE", "QUANTIZATION", "LOAD_IN_4BIT", "LOAD_IN_8BIT"),
        "GPUS": ("GPU", "NUM_GPUS"),
        "LORA_DIR": ("LORA_PATH", "LORAS_DIR", "LORA_FOLDER"),
        "LORA_REPOS": ("LORA", "LORAS", "LORA_REPO", "LORA_NAME"),
        "SAFETY_CHECKER": ("ENABLE_SAFETY_CHECKER", "DISABLE_SAFETY_CHECKER", "SAFETY_CHECK"),
        "JOB_TIMEOUT_S": ("JOB_TIMEOUT", "TIMEOUT_S"),
        "BUCKET_ENDPOINT_URL": ("BUCKET_URL", "BUCKET_ENDPOINT", "S3_ENDPOINT_URL", "S3_ENDPOINT"),
        "BUCKET_ACCESS_KEY_ID": ("BUCKET_ACCESS_KEY", "S3_ACCESS_KEY_ID", "S3_ACCESS_KEY"),
        "BUCKET_SECRET_ACCESS_KEY": ("BUCKET_SECRET_KEY", "BUCKET_SECRET", "S3_SECRET_ACCESS_KEY", "S3_SECRET_KEY"),
        "BUCKET_NAME": ("S3_BUCKET", "S3_BUCKET_NAME", "AWS_S3_BUCKET", "AWS_BUCKET_NAME"),
        "BUCKET_REGION": ("S3_REGION",),
    }
)
_MEANT = {other: name for name, others in ELSEWHERE.items() for other in others}


def suggest_settings(variables: Collection[str], settings: Collection[str]) -> dict[str, str]:
    """Variables that are no settings -> the settings that were probably meant, where those are not given themselves.

    Args:
        variables: the names of all that are given a value.
        settings: the names that there are, in capitals.
    """
    given = {name.upper() for name in variables}
    others = sorted(name for name in variables if name.upper() not in settings and name.isascii())
    suggested = {name: _suggest(name.upper(), settings) for name in others}
    return {name: meant for name, meant in suggested.items() if meant and meant not in given}


def _suggest(name: str, settings: Collection[str]) -> str | None:
    if name in _MEANT:
        return _MEANT[name]
    if name.startswith(_FOREIGN):
        return None
    return find_nearest(name, settings, NEAR)
