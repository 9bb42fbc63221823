"""A file beside the model cannot harm the worker: it is named, leaves no trace, and condemns nobody.

The samples are made up: bytes that no tensor has, numbers that are none, claims that no file keeps.
"""

import json
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.numpy import save
from safetensors.torch import load_file, save_file

from tests.helpers import tiny_models
from tests.helpers.drawing import assert_same, load_engine, picture
from tests.helpers.faults import a_worker, engine_of, is_open, run
from tests.helpers.tiny_addons import Kits
from worker.errors import ModelError, WorkerError
from worker.runtime.worker import Worker

LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
WEIGHTS = "diffusion_pytorch_model.safetensors"
MAX_SECONDS = 60  # on a busy machine; each takes about one
FEW = {"num_inference_steps": 2}
PLAIN = "blue, then red"
DTYPES = ("F4", "F6_E2M3", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F16", "BF16", "F64", "I8", "I64", "U16", "BOOL", "C64")
BITS = dict(zip(DTYPES, (4, 6, 8, 8, 8, 16, 16, 64, 8, 64, 16, 8, 64), strict=True))

Array = np.ndarray[Any, Any]


def factors() -> dict[str, Array]:
    """A LoRA of one layer."""
    return {DOWN: np.full((2, 32), 0.1, "f4"), UP: np.full((32, 2), 0.1, "f4")}


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file that says this of itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def of_dtype(name: str, shape: list[int], dtype: str) -> bytes:
    """One tensor of numbers of this format."""
    size = int(np.prod(shape)) * BITS[dtype] // 8
    return file_of({name: entry(shape, 0, size, dtype)}, b"\x10" * size)


def lora(extra: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> bytes:
    entries = {f"unet.{name}": value for name, value in (config or {}).items()}
    header = {"lora_adapter_metadata": json.dumps(entries)} if config else None
    return bytes(save({**factors(), **(extra or {})}, header))


def full(value: float, *shape: int) -> Array:
    return np.full(shape, value, "f4")


def vectors(seed: int) -> bytes:
    """An embedding like no other."""
    return bytes(save({"emb_params": np.random.default_rng(seed).standard_normal((1, 32), "f4")}))


def patterns(count: int) -> dict[str, Any]:
    return {"r": 2, "alpha_pattern": {f"a{i}.b": 1 for i in range(count)}}


BROKEN = {
    "overlap": file_of({DOWN: entry([2, 32], 0, 256), UP: entry([32, 2], 128, 384)}, bytes(384)),
    "past_the_end": file_of({DOWN: entry([2, 32], 0, 256), UP: entry([32, 2], 256, 512)}, bytes(500)),
    "hole": file_of({DOWN: entry([2, 32], 0, 256), UP: entry([32, 2], 512, 768)}, bytes(768)),
    "trailing": file_of({DOWN: entry([2, 32], 0, 256)}, bytes(512)),
    "negative": file_of({DOWN: entry([-2, -32], 0, 256)}, bytes(256)),
    "another_size": file_of({DOWN: entry([2, 33], 0, 256)}, bytes(256)),
    "huge_header": file_of({}, length=2**63),
    "no_json": file_of(b"no json at all"),
    "nested": file_of(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "unknown_dtype": file_of({DOWN: entry([2, 32], 0, 256, "F7")}, bytes(256)),
    "surrogate": file_of(b'{"\\ud800":' + json.dumps(entry([1], 0, 4)).encode() + b"}", bytes(4)),
    "product": file_of({DOWN: entry([2**40, 2**40], 0, 0)}),
    "many": file_of({f"x{i}.lora_A.weight": entry([0], 0, 0) for i in range(20_001)}),
    "long_name": file_of({"x" * 1_000_000: entry([0], 0, 0)}),
}
BAD_LORAS = {
    **{f"is_{dtype}": of_dtype(DOWN, [2, 32], dtype) for dtype in ("F4", "F6_E2M3", "I64", "C64")},
    **{f"down_{value:g}": lora({DOWN: full(value, 2, 32)}) for value in (np.nan, -np.inf, 1e30)},
    **{f"alpha_{value:g}": lora({f"{LAYER}.alpha": full(value)}) for value in (np.nan, -1e38)},
    **{f"dora_{value:g}": lora({f"{LAYER}.dora_scale": full(value, 32, 1)}) for value in (np.nan,)},
    "bias": lora({f"{LAYER}.lora_B.bias": full(1e38, 32)}),
    "loha": bytes(save({f"{LAYER}.hada_w{n}_{side}": full(1e20, 32, 32) for n in "12" for side in "ab"})),
    "empty": file_of({DOWN: entry([0, 32], 0, 0), UP: entry([32, 0], 0, 0)}),
    "of_rank_50_million": file_of({DOWN: entry([50_000_000, 0], 0, 0), UP: entry([0, 50_000_000], 0, 0)}),
    "dimensions": file_of({DOWN: entry([1] * 1_000 + [2, 32], 0, 256), UP: entry([32, 2], 256, 512)}, bytes(512)),
    "patterns": lora(config=patterns(5_001)),
    "long_config": lora(config=patterns(100_000)),
}
HARMLESS_LORAS = {
    **{f"alpha_{value:g}": lora({f"{LAYER}.alpha": full(value)}) for value in (0.0, -3.0, 1e-45)},
    "claims": lora(config={"r": 50_000_000, "target_modules": "(([a-z]+)+)+!", "lora_bias": True, "use_dora": True}),
    "escapes": lora({f"\x1b[31m\r\n{i}.lora_A.weight": full(1, 2, 2) for i in range(2)}),
    "blocks": lora(
        {
            f"lora_unet_input_blocks_{i}_1_x.lora_{way}.weight": full(1, 1, 1)
            for i in range(2_400)
            for way in ("up", "down")
        }
    ),
    **{
        f"word_{i}": lora({f"bundle_emb.{word}.emb_params": full(1, 3, 32)})
        for i, word in enumerate(("", " ", "\x1b[m\n", "w" * 300))
    },
    "word_of_nan": lora({"bundle_emb.nan.emb_params": full(np.nan, 3, 32)}),
    "word_too_long": lora({"bundle_emb.long.emb_params": full(0.1, 10_000, 32)}),
}
EMBEDDINGS = {
    **{f"is {dtype}": of_dtype("emb_params", [3, 32], dtype) for dtype in DTYPES},
    **{f"of {value:g}": bytes(save({"emb_params": full(value, 2, 32)})) for value in (np.nan, np.inf, 1e30, 1e38)},
    "of 10,000": bytes(save({"emb_params": full(0.1, 10_000, 32)})),
    "wide": bytes(save({"emb_params": full(0.1, 2, 48)})),
    "dimensions": file_of({"emb_params": entry([1] * 100 + [2, 32], 0, 256)}, bytes(256)),
    "nothing": file_of({}),
    "|endoftext|": bytes(save({"emb_params": full(0.1, 2, 32)})),
}
READ_EMBEDDINGS = ("is F8_E4M3", "is F8_E5M2", "is F16", "is BF16", "is F64")


def put(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def fresh(kits: Kits) -> Any:
    """What a worker draws that never saw a file beside the model."""
    return picture(load_engine(MODEL_NAME=str(kits["sd1"].model)), prompt=PLAIN, **FEW)


@pytest.fixture(scope="module")
def worker(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One that is offered all of them; the words, too."""
    root = tmp_path_factory.mktemp("hostile")
    for kind, files in (("broken", BROKEN), ("bad", BAD_LORAS), ("harmless", HARMLESS_LORAS)):
        put(files, root / "loras" / kind)
    shutil.copy(kits["sd1"].loras / "plain.safetensors", root / "loras" / "good.safetensors")
    words = {
        **EMBEDDINGS,
        **{word: vectors(seed) for seed, word in enumerate(("Dot", "dot"))},
    }
    folders = {"LORA_DIR": str(root / "loras"), "EMBEDDINGS_DIR": str(put(words, root / "words"))}
    with a_worker(MODEL_NAME=str(kits["sd1"].model), **folders) as made:
        yield made


def draws_as_if_fresh(worker: Worker, fresh: Any) -> None:
    assert is_open(worker)
    assert_same(picture(engine_of(worker), prompt=PLAIN, **FEW), fresh)


def told(answer: dict[str, Any]) -> str:
    """The message, which is one short line."""
    message = str(answer["message"])
    assert message.isprintable() and len(message) < 500
    return message


@pytest.mark.parametrize("name", BROKEN)
def test_a_lora_that_is_no_whole_file_is_left_out_at_start(name: str, worker: Worker) -> None:
    answer = run(worker, lora=f"broken/{name}", **FEW)

    assert answer["code"] == "INVALID_INPUT"
    assert f"the LoRA broken/{name} was left out: the file " in told(answer)


@pytest.mark.parametrize("name", BAD_LORAS)
def test_a_lora_that_cannot_be_computed_with_is_refused_twice_and_leaves_nothing(
    name: str, worker: Worker, fresh: Any
) -> None:
    begun = time.monotonic()
    for _ in range(2):
        answer = run(worker, lora=f"bad/{name}", **FEW)
        assert answer["code"] == "MODEL_ERROR"
        assert told(answer).startswith(f"the LoRA bad/{name} does not fit this model: ")

    draws_as_if_fresh(worker, fresh)
    assert time.monotonic() - begun < MAX_SECONDS


def test_a_good_lora_acts_after_bad_ones_as_on_a_worker_that_saw_none(kits: Kits, worker: Worker) -> None:
    for name in ("bias", "patterns"):
        run(worker, lora=f"bad/{name}", **FEW)

    expected = picture(load_engine(**kits["sd1"].settings("loras")), lora="plain", prompt=PLAIN, **FEW)
    assert_same(picture(engine_of(worker), lora="good", prompt=PLAIN, **FEW), expected)


@pytest.mark.parametrize("name", HARMLESS_LORAS)
def test_a_lora_that_claims_what_has_no_effect_draws_and_leaves_nothing(name: str, worker: Worker, fresh: Any) -> None:
    answer = run(worker, lora=f"harmless/{name}", **FEW)

    assert "error" not in answer
    assert all(warning.isprintable() and len(warning) < 300 for warning in answer["warnings"])
    draws_as_if_fresh(worker, fresh)


@pytest.mark.parametrize("word", EMBEDDINGS)
def test_an_embedding_that_cannot_be_used_is_left_out_and_said(word: str, worker: Worker, fresh: Any) -> None:
    answer = run(worker, prompt=f"a {word}, red", **FEW)

    assert "error" not in answer
    assert any("was left out" in warning for warning in answer["warnings"]) is (word not in READ_EMBEDDINGS)
    draws_as_if_fresh(worker, fresh)


def test_words_that_differ_in_case_are_two(worker: Worker) -> None:
    first, second, neither = (
        picture(engine_of(worker), prompt=f"a {word}, red", **FEW) for word in ("Dot", "dot", "pot")
    )

    assert len({one.tobytes() for one in (first, second, neither)}) == 3


LIKE_NUMBERS = st.floats(width=32) | st.sampled_from([np.nan, np.inf, 1e30, 65_504.0, 1e6, -1e6, 0.0])


@pytest.fixture(scope="module")
def changing(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """What a worker answers to a job with a LoRA of these bytes, which stands where a whole one stood at start."""
    folder = tmp_path_factory.mktemp("changing")
    put({"style": lora()}, folder)
    with a_worker(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(folder)) as made:

        def answer(content: bytes) -> dict[str, Any]:
            put({"style": content}, folder)
            engine_of(made).loras._make_room(10**12, ())
            said = run(made, lora="style", **FEW)
            assert is_open(made)
            return said

        yield answer


@examples(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    low=LIKE_NUMBERS,
    alpha=LIKE_NUMBERS,
    shape=st.lists(st.integers(0, 40), min_size=0, max_size=4),
    kind=st.sampled_from(["alpha", "dora_scale", "lora_B.bias", "lora_mid.weight", "hada_w1_a", "lokr_w1", "diff"]),
)
def test_whatever_a_loras_tensors_are_the_worker_answers(
    changing: Callable[[bytes], dict[str, Any]], low: float, alpha: float, shape: list[int], kind: str
) -> None:
    down = full(0.1, 2, 32)
    down[1, 3] = low
    answer = changing(lora({DOWN: down, f"{LAYER}.{kind}": full(alpha, *shape)}))

    assert answer.get("code", "MODEL_ERROR") == "MODEL_ERROR"


@examples(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 400))
def test_whatever_a_loras_header_is_the_worker_answers(
    changing: Callable[[bytes], dict[str, Any]], garbage: bytes, at: int
) -> None:
    content = lora(config={"r": 2, "lora_alpha": 1})
    answer = changing(content[:at] + garbage + content[at + len(garbage) :])

    assert answer.get("code", "MODEL_ERROR") == "MODEL_ERROR"


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def spoil(value: float) -> Change:
    """Put such a number into the first tensor."""

    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(iter(weights))
        spoilt = weights[name].clone()
        spoilt.view(-1)[0] = value
        return {**weights, name: spoilt}

    return change


WEIGHT_CHANGES: dict[str, tuple[Change, str]] = {
    "NaN": (spoil(float("nan")), "NaN or infinity"),
    "infinity": (spoil(float("-inf")), "NaN or infinity"),
    "too large": (spoil(1e30), r"1e\+30"),
    "one missing": (lambda weights: dict(list(weights.items())[1:]), "missing|out of meta"),
    "all missing": (lambda _: {}, "missing|no ControlNet|no VAE|'latents'"),
    "long name": (lambda weights: weights | {"x" * 501: torch.ones(1)}, "501 characters; allowed: 500"),
}
CONFIG_CHANGES: dict[str, dict[str, Any]] = {
    "a billion layers": {"layers_per_block": 10**9, "num_hidden_layers": 10**9},
    "many blocks": {
        "block_out_channels": [16] * 900,
        "down_block_types": ["DownBlock2D"] * 900,
        "up_block_types": ["UpBlock2D"] * 900,
        "num_hidden_layers": 900,
    },
    "a text": {"layers_per_block": "2", "num_hidden_layers": "2"},
    "nested": {"block_out_channels": [[[16]], [32]], "hidden_size": [[32]]},
    "nothing": {"norm_num_groups": 0, "num_attention_heads": 0},
    "another function": {"act_fn": "__import__('os').abort()", "hidden_act": "__import__('os').abort()"},
}


@pytest.fixture(scope="module")
def parts(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Setting -> how it names a place, and a folder or file that works."""
    vae = tmp_path_factory.mktemp("vae")
    tiny_models.sd1().vae.save_pretrained(vae)
    return {
        "CONTROLNETS": ("edges={}", kits["sd1"].controlnets["edges"]),
        "VAE_NAME": ("{}", vae),
        "IP_ADAPTER_ENCODER": ("{}", kits["sd1"].image_encoder),
        "IP_ADAPTER": ("{}", kits["sd1"].ip_adapter),
    }


FOLDERS = ("CONTROLNETS", "VAE_NAME", "IP_ADAPTER_ENCODER")


def refusal(kits: Kits, parts: dict[str, tuple[str, Path]], setting: str, place: Path) -> str:
    """Why a worker with this part beside its model does not start, told soon and in one line."""
    adapter = (
        kits["sd1"].settings("ip_adapter") if setting.startswith("IP_") else {"MODEL_NAME": str(kits["sd1"].model)}
    )
    begun = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        load_engine(**{**adapter, setting: parts[setting][0].format(place)})
    assert time.monotonic() - begun < MAX_SECONDS
    assert isinstance(caught.value, ModelError)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 800
    return str(caught.value)


def copy(place: Path, folder: Path) -> Path:
    """Of a folder, or of a file."""
    return Path(shutil.copytree(place, folder / "copy") if place.is_dir() else shutil.copy(place, folder))


SPOILT = [
    *((setting, change) for setting in (*FOLDERS, "IP_ADAPTER") for change in ("NaN", "one missing")),
    ("CONTROLNETS", "infinity"),
    ("VAE_NAME", "too large"),
    ("VAE_NAME", "long name"),
    ("IP_ADAPTER_ENCODER", "all missing"),
    ("IP_ADAPTER", "all missing"),
]


@pytest.mark.parametrize(("setting", "change"), SPOILT)
def test_a_part_whose_weights_cannot_be_computed_with_is_named_at_start(
    setting: str, change: str, kits: Kits, parts: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    place = copy(parts[setting][1], tmp_path)
    (file,) = place.glob("*.safetensors") if place.is_dir() else [place]
    apply, reason = WEIGHT_CHANGES[change]
    save_file(apply(load_file(file)), file)

    message = refusal(kits, parts, setting, place)

    assert setting.removesuffix("_ENCODER") in message
    assert re.search(reason, message)


ABSURD = [
    *((setting, change) for setting in FOLDERS for change in ("a billion layers", "a text")),
    *((setting, "many blocks") for setting in ("CONTROLNETS", "IP_ADAPTER_ENCODER")),
    ("VAE_NAME", "nested"),
    ("CONTROLNETS", "nothing"),
    ("VAE_NAME", "another function"),
]


@pytest.mark.parametrize(("setting", "change"), ABSURD)
def test_a_part_whose_config_asks_for_what_cannot_be_is_named_at_start(
    setting: str, change: str, kits: Kits, parts: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    folder = copy(parts[setting][1], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **CONFIG_CHANGES[change]}))

    assert setting in refusal(kits, parts, setting, folder)


@pytest.mark.parametrize("change", ["NaN", "too large"])
def test_a_controlnet_in_one_file_too(
    change: str, kits: Kits, parts: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    file = tmp_path / "edges.safetensors"
    save_file(WEIGHT_CHANGES[change][0](load_file(parts["CONTROLNETS"][1] / WEIGHTS)), file)

    assert "CONTROLNETS: edges: " in refusal(kits, parts, "CONTROLNETS", file)


def test_a_weight_that_overflows_in_half_precision_only_is_named(kits: Kits, tmp_path: Path) -> None:
    folder = copy(kits["sd1"].controlnets["edges"], tmp_path)
    save_file(spoil(1e5)(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    place = {"MODEL_NAME": str(kits["sd1"].model), "CONTROLNETS": f"edges={folder}"}

    load_engine(**place)
    with pytest.raises(ModelError, match="holds NaN or infinity as float16"):
        load_engine(**place, DTYPE="float16")


def test_thousands_of_loras_and_of_bad_files_are_no_burden(kits: Kits, tmp_path: Path) -> None:
    put({"first": lora(), "page": b"<html>"}, tmp_path)
    for number in range(3_000):
        file = tmp_path / "loras" / f"{number % 3}" / f"name_{number}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.hardlink_to(tmp_path / f"{'first' if number % 2 else 'page'}.safetensors")
    with a_worker(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(tmp_path / "loras")) as worker:
        begun = time.monotonic()
        tagged = run(worker, prompt=" ".join(f"<lora:n{i}:1>" for i in range(300)), **FEW)
        unknown = run(worker, loras=["0/name_000", "0/name_111"], **FEW)
        assert time.monotonic() - begun < MAX_SECONDS
    assert "error" not in tagged
    assert unknown["code"] == "INVALID_INPUT" and len(unknown["message"]) < 5_000
