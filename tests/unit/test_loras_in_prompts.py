"""`<lora:name:0.8>` in a prompt is no text but one more of the request's LoRAs, within the same bounds."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.asking import ask, model_of, refusal
from tests.helpers.fuzzing import examples
from worker.models.capabilities import Capabilities
from worker.request import Lora, remove_tags

NAMES = ("style", "people/anna", "people/bert", "pets/bert", "org/repo/thing.safetensors")
MODEL = model_of("sd1", loras=NAMES)


def _loras(model: Capabilities = MODEL, **fields: Any) -> list[tuple[str, float]]:
    return [(one.name, one.scale) for one in ask(model, **fields).loras]


@pytest.mark.parametrize(
    ("tag", "lora"),
    [
        ("<lora:style:0.8>", ("style", 0.8)),
        ("<lora:style>", ("style", 1.0)),
        ("<LoRA:style:-1>", ("style", -1.0)),
        ("<lora: style : 0.5 >", ("style", 0.5)),
        ("<lora:style.safetensors:2>", ("style", 2.0)),
        ("<lyco:style:.5>", ("style", 0.5)),
        ("<lora:people/anna:0.7>", ("people/anna", 0.7)),
        ("<lora:anna:0.7>", ("people/anna", 0.7)),
        ("<lora:thing:0.7>", ("org/repo/thing.safetensors", 0.7)),
        ("<lora:style:10>", ("style", 10.0)),
        ("<lora:style:0.5:0.5>", ("style", 0.5)),
    ],
)
def test_a_tag_asks_for_its_lora(tag: str, lora: tuple[str, float]) -> None:
    for prompt in (f"a cat {tag}", f"{tag} a cat", f"a cat, ({tag}:1.2)"):
        request = ask(MODEL, prompt=prompt)
        assert [(one.name, one.scale) for one in request.loras] == [lora]
        assert request.warnings == ()
        assert remove_tags(request.pictures[0].prompt) == prompt.replace(tag, "")


def test_tags_are_added_to_the_field_each_lora_once() -> None:
    prompt = "a <lora:style:0.8> b <lora:anna:0.5> <lora:style:0.8>"
    assert _loras(prompt=prompt) == [("style", 0.8), ("people/anna", 0.5)]
    assert _loras(prompt=prompt, loras=[{"name": "people/anna", "scale": 0.5}, "pets/bert"]) == [
        ("people/anna", 0.5),
        ("pets/bert", 1.0),
        ("style", 0.8),
    ]


def test_a_tag_without_a_scale_takes_the_jobs() -> None:
    request = ask(MODEL, prompt="<lora:style>", lora_scale=0.3)
    assert request.loras == (Lora("style", 0.3),) and request.warnings == ()


@pytest.mark.parametrize("prompt", ["<lora:style:0.8> <lora:style:0.7>", "<lora:style:0.8>"])
def test_two_scales_for_one_lora_are_refused(prompt: str) -> None:
    told = refusal(MODEL, prompt=prompt, loras=[{"name": "style", "scale": 0.7}])
    assert told.startswith("prompt: got ") and "different scales" in told and "<lora:style:0.8>" in told


@pytest.mark.parametrize("scale", ["11", "-10.5", "nan", "inf", "big", "1,5", "1e99"])
def test_the_bounds_are_those_of_the_field(scale: str) -> None:
    told = refusal(MODEL, prompt=f"a <lora:style:{scale}>")
    assert told.startswith("prompt: got ") and f"<lora:style:{scale}>" in told and "from -10 to 10" in told


def test_no_more_loras_than_the_field_takes() -> None:
    model = model_of("sd1", loras=tuple(f"l{i}" for i in range(10)))
    tags = " ".join(f"<lora:l{i}>" for i in range(8))
    assert len(_loras(model, prompt=tags)) == len(_loras(model, prompt=tags, loras=["l0"])) == 8
    for fields in ({"prompt": f"{tags} <lora:l8>"}, {"prompt": tags, "loras": ["l8"]}):
        assert "8 LoRAs at most, 9 are named" in refusal(model, **fields)


@pytest.mark.parametrize(
    "tag",
    ["<lora:other:1>", "<lora:bert:1>", "<hypernet:style:1>", "<lora::1>", "<lora:../style:1>", "<lora:other:big>"],
)
def test_what_names_no_lora_is_left_out_and_said(tag: str) -> None:
    request = ask(MODEL, prompt=f"a cat {tag}")
    assert request.loras == ()
    assert any(tag in note and "no LoRA" in note for note in request.warnings)


def test_many_of_them_are_one_warning() -> None:
    (note,) = ask(MODEL, prompt="".join(f"<lora:x{i}:1>" for i in range(300))).warnings
    assert "<lora:x0:1>" in note and "295 more" in note and len(note) < 500


@pytest.mark.parametrize("numbers", ["0.5:0.8", "0.5:0.8:4", "te=0.5:unet=0.8", "unet=0.8:te=0.5"])
def test_scales_of_their_own_for_text_encoders_are_said_to_have_no_effect(numbers: str) -> None:
    request = ask(MODEL, prompt=f"<lora:style:{numbers}>")
    assert request.loras == (Lora("style", 0.8),)
    assert any("one scale" in note for note in request.warnings)


def test_a_negative_prompt_names_no_lora() -> None:
    request = ask(MODEL, negative_prompt="bad <lora:style:1>")
    assert request.loras == ()
    assert any(note.startswith("negative_prompt: <lora:style:1> had no effect") for note in request.warnings)


def test_prompts_of_one_job_share_their_loras() -> None:
    assert _loras(prompt=["a <lora:style:0.5>", "<lora:style:0.5> b"]) == [("style", 0.5)]
    for prompts in (["a <lora:style:0.5>", "b"], ["a <lora:style:0.5>", "a <lora:anna:0.5>"]):
        assert "share their LoRAs" in refusal(MODEL, prompt=prompts)
    assert "different scales" in refusal(MODEL, prompt=["a <lora:style:0.5>", "<lora:style:0.6> b"])


@pytest.mark.parametrize("text", ["a < b: c", "<style>", "<lora:>", "lora:style:1", "<lora style>", "a <b:\n<c>"])
def test_other_brackets_are_text(text: str) -> None:
    request = ask(MODEL, prompt=text)
    assert request.loras == () and request.warnings == () and remove_tags(text) == text


def test_the_owner_can_have_tags_read_as_text() -> None:
    request = ask(replace(MODEL, plain_prompts=True), prompt="a <lora:style:0.8>", negative_prompt="<lora:x:1>")
    assert request.loras == () and request.warnings == ()


@examples(200)
@given(
    st.lists(
        st.sampled_from(["<lora:", "style", ":", "0.8", ">", "<", "=", "unet=", "a ", "other", "nan"]), max_size=12
    )
)
def test_any_prompt_is_read_or_refused_by_field(parts: list[str]) -> None:
    prompt = "".join(parts)
    fields = {"prompt": prompt, "negative_prompt": prompt}
    try:
        request = ask(MODEL, **fields)
    except Exception:
        assert refusal(MODEL, **fields).startswith("prompt: got ")
    else:
        assert all(one.name in NAMES and abs(one.scale) <= 10 for one in request.loras)
