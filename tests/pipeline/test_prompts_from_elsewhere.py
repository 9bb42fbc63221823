"""What is written for AUTOMATIC1111's web UI says the same here, shown on what the denoiser is told; or is said.

The rules are written here once more, with the text encoders alone: features times weights, the mean of each window
restored; windows apart at a BREAK; another text from a step on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import tiny_models
from tests.helpers.drawing import SMALL, assert_same, draw, load_engine, picture
from tests.helpers.every_kind import EDGES, IMAGE, MASK, equipped
from tests.helpers.plain_diffusers import around, load_plain, plainly, with_scheduler
from tests.helpers.tiny_addons import Kits
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.prompts.encode import PromptEncoder
from worker.engine.prompts.warnings import list_prompt_warnings
from worker.errors import InvalidInputError
from worker.plan import make_plan

FAMILIES = ["sd1", "sd2-v", "sdxl"]
UP, DOWN = 1.1, 1 / 1.1
Windows = list[list[tuple[str, float]]]
Told = list[dict[str, Tensor]]


def _encode_by_the_rules(pipeline: Any, windows: Windows) -> dict[str, Tensor]:
    """The features of these windows, each the parts of a text and their weights; of two encoders side by side."""
    suffixes = ["", "_2"] if hasattr(pipeline, "text_encoder_2") else [""]
    features = []
    for suffix in suffixes:
        tokenizer, encoder = getattr(pipeline, f"tokenizer{suffix}"), getattr(pipeline, f"text_encoder{suffix}")
        rows, pooled = [], []
        for parts in windows:
            ids, weights = [tokenizer.bos_token_id], [1.0]
            for text, weight in parts:
                tokens = tokenizer(text, add_special_tokens=False).input_ids
                ids, weights = ids + tokens, weights + [weight] * len(tokens)
            ids = [*ids, tokenizer.eos_token_id] + [tokenizer.pad_token_id] * (76 - len(ids))
            weights += [1.0] * (77 - len(weights))
            with torch.no_grad():
                output = encoder(torch.tensor([ids]), output_hidden_states=True)
            z = output.hidden_states[-2] if len(suffixes) > 1 else output[0]
            weighted = z * torch.tensor(weights)[None, :, None]
            rows.append(weighted * (z.mean() / weighted.mean()))
            pooled.append(output[0])
        features.append(torch.cat(rows, dim=1))
    return {"prompt_embeds": torch.cat(features, -1)} | ({"pooled_prompt_embeds": pooled[0]} if suffix else {})


EQUAL: dict[str, Windows] = {
    "a (red) [blue] (dot:1.5)": [
        [("a ", 1), ("red", UP), (" ", 1), ("blue", DOWN), (" ", 1), ("dot", 1.5)],
    ],
    "((cat)) dog": [[("cat", UP * UP), (" dog", 1)]],
    "[[cat]] (dog:-0.5)": [[("cat", DOWN * DOWN), (" ", 1), ("dog", -0.5)]],
    r"tifa \(fantasy\), (smile:1.2)": [[("tifa (fantasy), ", 1), ("smile", 1.2)]],
    "a cat BREAK a dog": [[("a cat", 1)], [("a dog", 1)]],
    "a (cat BREAK dog:1.3)": [[("a ", 1), ("cat", 1.3)], [("dog", 1.3)]],
    "a (cat, [[dog": [[("a ", 1), ("cat, ", UP), ("dog", UP * DOWN * DOWN)]],
    # One token a letter: 75 fill a window, which ends behind a comma that is near.
    "abcde " * 12 + ", star (moon:1.2) and more": [
        [("abcde " * 12 + ", ", 1)],
        [("star ", 1), ("moon", 1.2), (" and more", 1)],
    ],
    "(abcde:1.4) " * 20: [[("abcde", 1.4)] * 15, [("abcde", 1.4)] * 5],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Engine, Any]]:
    """Family -> a tiny model whose features have a mean, as trained ones have, and plain diffusers' own."""
    found = {}
    for family in FAMILIES:
        pipeline = tiny_models.UNETS[family]()
        with torch.no_grad():
            pipeline.text_encoder.final_layer_norm.bias += 0.1
        folder = tiny_models.save(pipeline, tmp_path_factory.mktemp("trained"))
        found[family] = load_engine(MODEL_NAME=str(folder)), load_plain(folder)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", EQUAL)
def test_the_embeddings_are_those_of_the_rules(
    family: str, prompt: str, trained: dict[str, tuple[Engine, Any]]
) -> None:
    engine, plain = trained[family]
    request = parse({"input": {**SMALL, "prompt": prompt, "negative_prompt": prompt}}, engine.capabilities)[0]
    (phase,) = PromptEncoder(engine, make_plan(request)).encode(engine.pipeline, prompt)

    for name, expected in _encode_by_the_rules(plain, EQUAL[prompt]).items():
        for found in (phase.embeddings[name], phase.embeddings[f"negative_{name}"]):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_weights_that_leave_no_mean_to_restore_still_draw(sd1: Engine) -> None:
    for prompt in ("(" + "abcde " * 12 + "abc:0)", "(a:-10) (b:10)", "(" * 4_990 + "a", "[" * 4_990 + "a"):
        assert picture(sd1, prompt=prompt, num_inference_steps=2).getbbox() is not None


@contextmanager
def _listening(*denoisers: Any) -> Iterator[Told]:
    """What the denoisers are told of the prompts, call by call, inside the `with`."""
    told: Told = []

    def listen(_: Any, __: Any, named: dict[str, Any]) -> None:
        texts = {"hidden": named["encoder_hidden_states"], **(named.get("added_cond_kwargs") or {})}
        told.append({name: value.clone() for name, value in texts.items() if name in ("hidden", "text_embeds")})

    hooks = [denoiser.register_forward_pre_hook(listen, with_kwargs=True) for denoiser in denoisers]
    try:
        yield told
    finally:
        for hook in hooks:
            hook.remove()


def _tell(engine: Engine, **fields: Any) -> Told:
    """What the denoisers are told when such a job is drawn."""
    refiner = [engine.refiner.unet] if engine.refiner else []
    with _listening(engine.pipeline.unet, *refiner) as told:
        draw(engine, **{"scheduler": "Euler", "num_inference_steps": 4, **fields})
    return told


def _assert_told(found: Told, *parts: Told) -> None:
    expected = [one for part in parts for one in part]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def able(kits: Kits) -> dict[str, Engine]:
    """Family -> its tiny model with LoRAs and ControlNets."""
    return {family: equipped(kits, family, ip_adapter=False) for family in ("sd1", "sdxl")}


TASKS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": IMAGE, "strength": 1.0},
    "mask": {"image": IMAGE, "mask": MASK, "strength": 1.0},
    "control": {"controlnet": EDGES},
    "control, image": {"controlnet": EDGES, "image": IMAGE, "strength": 1.0},
    "control, mask": {"controlnet": EDGES, "image": IMAGE, "mask": MASK, "strength": 1.0},
    "unguided": {"guidance_scale": 1.0},
}


@pytest.fixture(scope="module")
def references(able: dict[str, Engine]) -> dict[str, list[Told]]:
    """Family -> what the denoiser is told of three pairs of prompts, at one step."""
    pairs = [("a cat", "bad"), ("a dog", "bad"), ("a dog", "worse")]
    return {
        family: [_tell(engine, prompt=one, negative_prompt=other)[:1] for one, other in pairs]
        for family, engine in able.items()
    }


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("task", TASKS)
def test_another_text_from_a_step_on(
    family: str, task: str, able: dict[str, Engine], references: dict[str, list[Told]]
) -> None:
    """In the prompt and in the negative one, which change at steps of their own."""
    found = _tell(able[family], prompt="a [cat:dog:0.5]", negative_prompt="[bad:worse:3]", **TASKS[task])

    parts = references[family]
    if task == "unguided":  # only of what is to be drawn is anything told
        parts = [[{name: value.chunk(2)[1] for name, value in told[0].items()}] for told in parts]
    cat, dog, worse = parts
    assert not torch.equal(cat[0]["hidden"], dog[0]["hidden"])
    _assert_told(found, cat * 2, dog, worse)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_picture_is_that_of_diffusers_told_so(family: str, able: dict[str, Engine]) -> None:
    plain = with_scheduler(around(able[family].pipeline), "DDIM")
    xl = family == "sdxl"

    def embed(prompt: str) -> list[Tensor]:
        with torch.no_grad():
            found = plain.encode_prompt(
                prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt="bad"
            )
        return list(found)

    cat, dog = embed("a cat"), embed("a dog")

    def on_step_end(_: Any, index: int, __: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index == 1:
            tensors["prompt_embeds"] = torch.cat([dog[1], dog[0]])
            if xl:
                tensors["add_text_embeds"] = torch.cat([dog[3], dog[2]])
        return tensors

    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    theirs = plainly(plain, prompt=None, callback_on_step_end=on_step_end, **dict(zip(names, cat, strict=False)))

    ours = picture(able[family], prompt="a [cat:dog:0.5]", negative_prompt="bad", scheduler="DDIM")
    assert_same(ours, theirs)
    assert ours != picture(able[family], prompt="a cat", negative_prompt="bad", scheduler="DDIM")


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_the_next_picture_starts_with_the_first_text_again(guidance_scale: float, able: dict[str, Engine]) -> None:
    job = {"prompt": "a [cat:dog:0.5]", "guidance_scale": guidance_scale, "seed": [3, 3]}
    first, second = draw(able["sdxl"], num_images=2, **job)
    assert_same(first.image, second.image)


def test_texts_of_several_lengths(sd1: Engine) -> None:
    """What the denoiser is told has one length throughout: that of the longest text."""
    found = _tell(sd1, prompt=f"[a:{'long ' * 30}:0.5]")
    short, long = _tell(sd1, prompt="a"), _tell(sd1, prompt="long " * 30)
    assert found[0]["hidden"].shape == found[3]["hidden"].shape == long[0]["hidden"].shape
    assert torch.equal(found[0]["hidden"][:, :77], short[0]["hidden"])
    _assert_told(found[2:], long[2:])


def test_a_scheduler_that_steps_twice_counts_once(sd1: Engine) -> None:
    heun = {"scheduler": "Heun"}
    found = _tell(sd1, prompt="[cat:dog:2]", **heun)
    cat, dog = _tell(sd1, prompt="cat", **heun), _tell(sd1, prompt="dog", **heun)
    assert len(found) == 7
    _assert_told(found, cat[:4], dog[4:])


def test_image_to_image_counts_the_steps_that_it_runs(sd1: Engine) -> None:
    job = {"image": IMAGE, "strength": 0.5, "num_inference_steps": 8}
    found = _tell(sd1, prompt="[cat:dog:0.5]", **job)
    _assert_told(found, _tell(sd1, prompt="cat", **job)[:2], _tell(sd1, prompt="dog", **job)[2:])


def test_the_second_pass_counts_from_one_to_two(sd1: Engine) -> None:
    job = {"hires": {"scale": 1.5, "strength": 1.0, "steps": 4}}
    cat, dog = _tell(sd1, prompt="cat", **job), _tell(sd1, prompt="dog", **job)
    for when, step in {"0.5": 2, "1.0": 4, "1.5": 6, "5": 5}.items():
        _assert_told(_tell(sd1, prompt=f"[cat:dog:{when}]", **job), cat[:step], dog[step:])


def test_the_refiner_goes_on_in_the_same_schedule(kits: Kits, tmp_path: Path) -> None:
    refiner = tiny_models.save(tiny_models.sdxl_refiner(), tmp_path)
    engine = load_engine(**kits["sdxl"].settings("controlnets"), REFINER_NAME=str(refiner))
    job: dict[str, Any] = {"num_inference_steps": 10, "refiner": {"high_noise_frac": 0.8}}
    cat, dog = _tell(engine, prompt="cat", **job), _tell(engine, prompt="dog", **job)
    assert len(cat) == 10
    for extra in ({}, {"controlnet": EDGES}):
        for when, step in {"0.7": 7, "9": 9}.items():
            _assert_told(_tell(engine, prompt=f"[cat:dog:{when}]", **job, **extra), cat[:step], dog[step:])


def test_a_lora_in_the_prompt_is_one_in_the_field(able: dict[str, Engine]) -> None:
    for family, engine in able.items():
        wanted = picture(engine, prompt="a cat ", loras=[{"name": "plain", "scale": 0.8}])
        assert_same(picture(engine, prompt="a cat <lora:plain:0.8>"), wanted)
        assert wanted != picture(engine, prompt="a cat "), family


def test_a_lora_in_the_prompt_of_a_transformer(kits: Kits) -> None:
    engine = load_engine(**kits["flux"].settings("loras"))
    assert_same(picture(engine, prompt="a cat <lora:plain:0.8>"), picture(engine, prompt="a cat ", loras=[PLAIN_LORA]))
    assert_same(picture(engine, prompt="a cat <lora:other:0.8>"), picture(engine, prompt="a cat "))


PLAIN_LORA = {"name": "plain", "scale": 0.8}


def _notes(engine: Engine, **fields: Any) -> list[str]:
    return list_prompt_warnings(engine, parse({"input": {**SMALL, **fields}}, engine.capabilities)[0])


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a cat AND a dog", "AND between prompts"),
        ("a [cat|dog]", "[a|b]"),
        ("a (cat:11)", "weights beyond 10"),
        ("a embedding:nothing.pt", "no embedding nothing.pt"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_honoured_is_said(family: str, prompt: str, said: str, engines: dict[str, Engine]) -> None:
    assert [note.startswith("prompt: ") and said in note for note in _notes(engines[family], prompt=prompt)] == [True]
    negative = _notes(engines[family], negative_prompt=prompt)
    assert [note.startswith("negative_prompt: ") and said in note for note in negative] == [True]


def test_alternation_is_drawn_as_text(sd1: Engine) -> None:
    assert_same(picture(sd1, prompt="a [cat|dog]"), picture(sd1, prompt=r"a \[cat|dog\]"))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a (cat)", "weights"),
        ("((cat))", "weights"),
        ("a [cat]", "weights"),
        ("a (cat:1.2)", "weights"),
        ("a BREAK b", "BREAK"),
        (r"a \(cat\)", "escapes"),
        ("a [cat:dog:0.5]", "changes by step"),
        ("a [cat|dog]", "alternation"),
        ("cat AND dog", "AND"),
    ],
)
def test_models_that_take_no_weights_say_what_they_read_as_text(
    prompt: str, said: str, more_engines: dict[str, Engine]
) -> None:
    for family in ("sd3", "flux"):
        (note,) = _notes(more_engines[family], prompt=prompt)
        assert note.startswith("prompt: ") and said in note and "read as plain text" in note


PASTED = r"((a)) [b:c:0.5] BREAK (d:1.3) [e|f] AND <lora:x:1> \(embedding:g"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_owner_can_have_prompts_read_as_text(family: str, folders: dict[str, Path], plain: dict[str, Any]) -> None:
    engine = load_engine(MODEL_NAME=str(folders[family]), PROMPT_SYNTAX="plain")
    texts = {"prompt": PASTED, "negative_prompt": PASTED[:30]}

    ours = picture(engine, scheduler="DDIM", **texts)
    assert_same(ours, plainly(with_scheduler(plain[family], "DDIM"), **texts))
    assert _notes(engine, **texts) == []
    assert parse({"input": {**SMALL, **texts}}, engine.capabilities)[0].warnings == ()


@pytest.mark.parametrize(
    "prompt",
    ["BREAK " * 40 + "a", "".join(f"[a:{i}]" for i in range(1, 60)), "[" + "ab" * 900 + ":" + "ba" * 900 + ":0.5]"],
    ids=["windows", "changes", "texts"],
)
def test_more_texts_than_take_any_time_to_read_are_refused(prompt: str, sd1: Engine) -> None:
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(InvalidInputError, match=rf"^{field}: got .*; at most 32$"):
            picture(sd1, **{"num_inference_steps": 100, field: prompt})
