"""A variable that was probably meant to be a setting is told by name, never what it holds; others are left in peace."""

import pytest

from worker.setting_names import ELSEWHERE, suggest_settings
from worker.settings import Settings, list_mistaken_names

SETTINGS = [*(name.upper() for name in Settings.model_fields), "HF_AUTH_TOKEN"]
# What containers hold anyway: of the platform, the driver, Python, torch, the hub's client, shells, other tools.
_USUAL = """
PATH HOME HOSTNAME LANG LC_ALL PWD OLDPWD SHLVL TERM USER SHELL TZ _ DEBIAN_FRONTEND LD_LIBRARY_PATH LIBRARY_PATH
RUNPOD_POD_ID RUNPOD_ENDPOINT_ID RUNPOD_AI_API_KEY RUNPOD_API_KEY RUNPOD_WEBHOOK_GET_JOB RUNPOD_WEBHOOK_POST_OUTPUT
RUNPOD_WEBHOOK_PING RUNPOD_PING_INTERVAL RUNPOD_LOG_LEVEL RUNPOD_VOLUME_ID RUNPOD_POD_HOSTNAME RUNPOD_GPU_COUNT
RUNPOD_MEM_GB RUNPOD_CPU_COUNT RUNPOD_PUBLIC_IP RUNPOD_TCP_PORT_22 RUNPOD_DC_ID RUNPOD_MODEL_NAME RUNPOD_MAX_STEPS
CUDA_VERSION CUDA_HOME CUDA_VISIBLE_DEVICES CUDA_MODULE_LOADING NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES
NVIDIA_REQUIRE_CUDA NV_CUDA_LIB_VERSION NV_LIBNCCL_PACKAGE_NAME NCCL_VERSION NCCL_DEBUG CUDNN_VERSION
PYTORCH_CUDA_ALLOC_CONF PYTORCH_VERSION TORCH_HOME TORCH_CUDA_ARCH_LIST TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR
OMP_NUM_THREADS OMP_WAIT_POLICY MKL_NUM_THREADS TOKENIZERS_PARALLELISM TRANSFORMERS_VERBOSITY TRANSFORMERS_CACHE
HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HF_HUB_ENABLE_HF_TRANSFER HF_XET_HIGH_PERFORMANCE HF_ENDPOINT HF_DATASETS_CACHE
HUGGINGFACE_HUB_CACHE DIFFUSERS_CACHE BITSANDBYTES_NOWELCOME SAFETENSORS_FAST_GPU PYTHONPATH PYTHONUNBUFFERED
PYTHON_VERSION PYTHONDONTWRITEBYTECODE PIP_NO_CACHE_DIR VIRTUAL_ENV UV_CACHE_DIR GPG_KEY AWS_ACCESS_KEY_ID
AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION AWS_REGION AWS_ENDPOINT_URL REQUESTS_CA_BUNDLE SSL_CERT_FILE HTTP_PROXY
HTTPS_PROXY NO_PROXY PORT HOST PUBLIC_KEY JUPYTER_PASSWORD WANDB_API_KEY OPENAI_API_KEY API_KEY LOG_LEVEL DEBUG
CONCURRENCY MAX_CONCURRENCY BATCH_SIZE MODEL_CACHE MODEL_CACHE_DIR MODEL_DIR MODELS_DIR MODEL_TYPE BASE_MODEL
MAX_MODEL_LEN MAX_TOKENS MAX_JOBS MAX_LENGTH LOGDIR OUTPUT_DIR IMAGE_NAME DOMAIN_NAME POD_NAME APP_NAME NODE_NAME
SERVICE_NAME JOB_NAME CONTAINER_NAME ENV_NAME VAR_NAME TIMEOUT JOB_ID SCHEDULER_URL
"""
USUAL = _USUAL.split()


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("MODELNAME", "MODEL_NAME"),
        ("MODEL_NAMES", "MODEL_NAME"),
        ("MODLE_NAME", "MODEL_NAME"),
        ("MODEL-NAME", "MODEL_NAME"),
        ("modelname", "MODEL_NAME"),
        ("MODEL", "MODEL_NAME"),
        ("MODEL_ID", "MODEL_NAME"),
        ("MODEL_PATH", "MODEL_NAME"),
        ("HF_MODEL", "MODEL_NAME"),
        ("HUGGINGFACE_TOKEN", "HF_TOKEN"),
        ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"),
        ("HF_TOKENS", "HF_TOKEN"),
        ("MAX_PIXEL", "MAX_PIXELS"),
        ("MAX_IMAGE", "MAX_IMAGES"),
        ("MAX_STEP", "MAX_STEPS"),
        ("LORA_DIRS", "LORA_DIR"),
        ("CONTROLNET", "CONTROLNETS"),
        ("SAFETY_CHECKERS", "SAFETY_CHECKER"),
        ("ALLOW_IMAGE_HOSTS", "ALLOWED_IMAGE_HOSTS"),
        ("ALLOWED_BUCKETS_HOSTS", "ALLOWED_BUCKET_HOSTS"),
        ("JOB_TIMEOUT", "JOB_TIMEOUT_S"),
        ("BUCKET_ENDPOINT", "BUCKET_ENDPOINT_URL"),
        ("BUCKET_SECRET_KEY", "BUCKET_SECRET_ACCESS_KEY"),
        ("S3_BUCKET", "BUCKET_NAME"),
    ],
)
def test_a_near_miss_leads_to_the_setting(variable: str, setting: str) -> None:
    assert suggest_settings([*USUAL, variable], SETTINGS) == {variable: setting}
    assert suggest_settings([variable, setting], SETTINGS) == {}, "which is given, so that nothing was missed"
    assert suggest_settings([variable, setting.lower()], SETTINGS) == {}


def test_what_containers_hold_anyway_is_no_mistake() -> None:
    assert suggest_settings(USUAL, SETTINGS) == {}


def test_settings_are_no_mistakes_in_capitals_or_not() -> None:
    assert suggest_settings(SETTINGS, SETTINGS) == suggest_settings([name.lower() for name in SETTINGS], SETTINGS) == {}


def test_every_suggestion_is_a_setting() -> None:
    assert {*ELSEWHERE} <= {*SETTINGS}


def test_a_mistake_is_told_in_one_line_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODELNAME", "canary")
    monkeypatch.setenv("HUGGINGFACE_TOKEN", "hf_canary")
    monkeypatch.setenv("MAX_PIXEL", " ")  # the Hub's way to say nothing
    assert list_mistaken_names() == [
        "HUGGINGFACE_TOKEN is not a setting; did you mean HF_TOKEN?",
        "MODELNAME is not a setting; did you mean MODEL_NAME?",
    ]
