"""What diffusers can do with a prompt it does; weights and what is beyond CLIP's window are done here.

A tiny model's tokenizer has one token a letter, so 75 letters fill its window.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from tests.helpers.drawing import SMALL, assert_same, picture
from tests.helpers.plain_diffusers import plainly, with_scheduler
from tests.helpers.tiny_transformers import t5_tokenizer
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.prompts.encode import PromptEncoder
from worker.engine.prompts.warnings import list_prompt_warnings
from worker.errors import InvalidInputError
from worker.plan import make_plan

FULL = "abcde" * 15  # CLIP's window: 75 tokens, between one that starts and one that ends
LONG = "a red square on a white ground " * 6
FAMILIES = ["sd1", "sd2-v", "sdxl"]
Embed = Callable[..., dict[str, Any]]


@pytest.fixture
def embed(engines: dict[str, Engine]) -> Embed:
    """What the pipeline is told for such a job."""

    def arguments(family: str, **fields: Any) -> dict[str, Any]:
        engine = engines[family]
        request = parse({"input": {**SMALL, **fields}}, engine.capabilities)[0]
        (phase,) = PromptEncoder(engine, make_plan(request)).encode(engine.pipeline, request.pictures[0].prompt)
        return dict(phase.embeddings)

    return arguments


def encoded(pipeline: DiffusionPipeline, prompt: str, negative: str | None = None) -> dict[str, Tensor]:
    """Diffusers' own embeddings."""
    xl = hasattr(pipeline, "text_encoder_2")
    with torch.no_grad():
        tensors = pipeline.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt=negative
        )
    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    return dict(zip(names[: 4 if xl else 2], tensors, strict=True))


def off(one: Tensor, other: Tensor) -> float:
    """The root mean square of their difference, as a share of the other."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", ["a red square, {dot}", "c++ code: 1.5", "a|b <c> a:b", FULL, ""])
def test_plain_prompts_are_encoded_as_by_diffusers(
    family: str, prompt: str, engines: dict[str, Engine], plain: dict[str, Any]
) -> None:
    for fields in ({"prompt": prompt}, {"negative_prompt": prompt}):
        drawn = picture(engines[family], scheduler="DDIM", num_inference_steps=3, **fields)

        assert_same(drawn, plainly(with_scheduler(plain[family], "DDIM"), num_inference_steps=3, **fields))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("negative", [None, "", "a star", "a (star:1.0)"])
def test_a_weight_of_one_is_none(family: str, negative: str | None, embed: Embed, plain: dict[str, Any]) -> None:
    """Our own way to embeddings ends where diffusers' does; negative prompts left out are its own too."""
    ours = embed(family, prompt="a (red:1.0) square", negative_prompt=negative)

    theirs = encoded(plain[family], "a red square", negative and negative.replace("(star:1.0)", "star"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_more_weight_moves_further_from_the_prompt_without(family: str, embed: Embed) -> None:
    """And less weight, to the other side."""
    weights = [0.0, 0.3, 0.6, 1.0, 1.2, 1.5, 2.0]
    found = [embed(family, prompt=f"a (red:{weight}) square")["prompt_embeds"] for weight in weights]
    plain = found[weights.index(1.0)]

    away = [off(one, plain) for one in found]
    assert sorted(away[:4], reverse=True) == away[:4] and sorted(away[3:]) == away[3:]
    if family != "sdxl":  # where restoring means moves all the rest, too
        assert ((found[0] - plain) * (found[-1] - plain)).sum() < 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_negative_prompt_has_weights_of_its_own(family: str, embed: Embed) -> None:
    light, even, heavy = (embed(family, negative_prompt=f"a (blue:{weight}) dot") for weight in (0.5, 1.0, 1.5))

    for name in light:
        same = name != "negative_prompt_embeds"
        assert (off(light[name], even[name]) < 1e-6) is same and (off(heavy[name], even[name]) < 1e-6) is same


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_long_prompt_matters(family: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ends = [f"{LONG} and a {thing}" for thing in ("cat", "dog")]
    theirs = with_scheduler(plain[family], "DDIM")
    for field in ("prompt", "negative_prompt"):
        ours = [picture(engines[family], scheduler="DDIM", num_inference_steps=3, **{field: end}) for end in ends]

        assert ours[0].tobytes() != ours[1].tobytes()
        cut = [plainly(theirs, num_inference_steps=3, **{field: end}) for end in ends]
        assert cut[0].tobytes() == cut[1].tobytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_letter_too_many_is_a_second_window(family: str, embed: Embed) -> None:
    """Both prompts then have as many tokens."""
    assert embed(family, prompt=FULL)["prompt_embeds"].shape[1] == 77
    for fields in ({"prompt": FULL + "f"}, {"prompt": "a star", "negative_prompt": FULL + "f"}):
        told = embed(family, **fields)
        assert told["prompt_embeds"].shape[1] == told["negative_prompt_embeds"].shape[1] == 2 * 77
    assert embed(family, prompt="(a:1.1) " + "abcde " * 30)["prompt_embeds"].shape[1] == 3 * 77


def test_the_windows_of_a_long_prompt_are_read_one_by_one(embed: Embed, plain: dict[str, Any]) -> None:
    first, second = "a red square " * 7 + "stars", "a blue dot " * 4 + "moon"  # 75 and 36 letters

    windows = embed("sd1", prompt=f"{first} {second}")["prompt_embeds"].split(77, dim=1)

    expected = [encoded(plain["sd1"], text)["prompt_embeds"] for text in (first, second)]
    for window, alone in zip(windows, expected, strict=True):
        assert off(window, alone) < 1e-5


def test_weights_and_length_leave_sdxl_its_zeros_and_its_pooled_text(embed: Embed, plain: dict[str, Any]) -> None:
    theirs = encoded(plain["sdxl"], "a red square")
    told = embed("sdxl", prompt="a (red:1.5) square")
    long = embed("sdxl", prompt=LONG)

    for ours in (told, long):
        assert not ours["negative_prompt_embeds"].any() and not ours["negative_pooled_prompt_embeds"].any()
    assert not torch.equal(told["prompt_embeds"], theirs["prompt_embeds"])
    torch.testing.assert_close(told["pooled_prompt_embeds"], theirs["pooled_prompt_embeds"])
    torch.testing.assert_close(long["pooled_prompt_embeds"], encoded(plain["sdxl"], LONG)["pooled_prompt_embeds"])
    assert embed("sdxl", prompt=LONG, negative_prompt="")["negative_prompt_embeds"].any()


@pytest.mark.parametrize("family", ["sd3", "flux", "chroma"])
def test_transformers_read_plain_text_and_say_what_has_no_effect(
    family: str, more_engines: dict[str, Engine], more_plain: dict[str, DiffusionPipeline]
) -> None:
    engine = more_engines[family]
    window = {"sd3": 256, "flux": 512, "chroma": 512}[family]

    def notes(prompt: str) -> list[str]:
        return list_prompt_warnings(engine, parse({"input": {**SMALL, "prompt": prompt}}, engine.capabilities)[0])

    spare = window - len(t5_tokenizer()("a").input_ids)
    assert notes("a red square") == notes("a red square: 1.3, c++") == notes("a" * (spare + 1)) == []
    assert "weights" in notes("a (red:1.3) square")[0]
    (lost,) = notes("a" * (spare + 1) + "bcd")
    assert "last 3 tokens" in lost
    call = {"prompt": "a (red:1.3) square", "num_inference_steps": 2, "guidance_scale": 4.0}
    assert_same(picture(engine, **call), plainly(more_plain[family], **call))


def test_models_that_read_all_of_it_have_nothing_to_say(engines: dict[str, Engine]) -> None:
    for family in FAMILIES:
        request = parse({"input": {**SMALL, "prompt": f"a (red:1.3) {LONG}"}}, engines[family].capabilities)[0]
        assert list_prompt_warnings(engines[family], request) == []


@pytest.mark.parametrize("fields", [{"prompt": "ab" * 1_300}, {"negative_prompt": "(ab:1.2)" * 10 + "ab" * 1_250}])
@pytest.mark.parametrize("family", FAMILIES)
def test_more_than_takes_any_time_to_read_is_refused(
    family: str, fields: dict[str, Any], engines: dict[str, Engine]
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        picture(engines[family], **fields)
    assert str(refused.value).startswith(f"{next(iter(fields))}: got a text of ")
    assert str(refused.value).endswith(" windows of 75 tokens; at most 32")


def test_weights_do_not_count_as_text(engines: dict[str, Engine]) -> None:
    assert picture(engines["sd1"], prompt="(ab:1.2)" * 600).getbbox() is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_without_guidance_a_negative_prompt_has_no_effect_however_long(family: str, engines: dict[str, Engine]) -> None:
    without = picture(engines[family], guidance_scale=1.0)
    for negative in ("a star", LONG, "a (star:1.3)"):
        assert_same(picture(engines[family], guidance_scale=1.0, negative_prompt=negative), without)
