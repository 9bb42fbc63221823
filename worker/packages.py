"""Which packages a start imports, as the settings say: libraries import more where it is installed, or later."""

from worker.models.quantised import may_be_quantised
from worker.settings import EMBEDDED_MODEL, peek_settings


def list_unused_packages() -> list[str]:
    """Packages that the settings have no use for, though libraries import them where they are installed."""
    settings = peek_settings()
    if settings is None:
        return []
    with_loras = settings.lora_dir or settings.lora_repos or settings.model_name in (None, str(EMBEDDED_MODEL))
    unused = {
        "bitsandbytes": settings.quantize in ("none", "fp8") and not may_be_quantised(settings),
        "gguf": not settings.may_be_packed,
        "torchao": settings.quantize != "fp8",
        "peft": not with_loras and settings.ip_adapter is None,
    }
    return [name for name, is_unused in unused.items() if is_unused]


def list_needed_packages() -> list[str]:
    """Packages that the settings will use, though others could wait for them until something does."""
    settings = peek_settings()
    return ["torch._dynamo"] if settings is not None and settings.acceleration == "compile" else []
