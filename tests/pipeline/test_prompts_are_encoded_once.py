"""A job's prompts are tokenized and encoded once, however many pictures and passes they are for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
from PIL import ImageChops

from tests.helpers.drawing import assert_same, draw, load_engine, picture
from tests.helpers.tiny_addons import Kits
from worker.engine.engine import Engine

HIRES = {"scale": 2.0, "strength": 0.5}


class Calls:
    """How often text encoders ran and tokenizers were called."""

    def __init__(self) -> None:
        self.encoders = self.tokenizers = 0

    def encoder(self, *_: object) -> None:
        self.encoders += 1

    def tokenizer(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **named: object) -> object:
            self.tokenizers += 1
            return call(*given, **named)

        return counted


@contextmanager
def counting(engine: Engine) -> Iterator[Calls]:
    """The calls of every text encoder and tokenizer of the engine, inside the `with`; it knows no prompt before."""
    calls = Calls()
    engine.embeddings.clear()
    parts = engine.pipeline.components
    encoders = [part for name, part in parts.items() if name.startswith("text_encoder")]
    tokenizers = {type(part) for name, part in parts.items() if name.startswith("tokenizer")}
    with ExitStack() as stack:
        for encoder in encoders:
            stack.callback(encoder.register_forward_hook(calls.encoder).remove)
        for kind in tokenizers:
            stack.enter_context(mock.patch.object(kind, "__call__", calls.tokenizer(kind.__call__)))
        yield calls


def test_one_prompt_four_pictures_and_a_second_pass(sd1: Engine) -> None:
    with counting(sd1) as calls:
        assert len(draw(sd1, num_images=4, hires=HIRES)) == 4

    assert (calls.encoders, calls.tokenizers) == (2, 2)  # the prompt, and none to be guided away from


def test_each_prompt_of_a_list_is_read_once_and_the_negative_one_once_for_all(sd1: Engine) -> None:
    with counting(sd1) as calls:
        draw(sd1, prompt=["a", "b", "a"], num_images=2, negative_prompt="c")

    assert (calls.encoders, calls.tokenizers) == (3, 3)


def test_without_guidance_nothing_is_read_that_is_not_used(sd1: Engine) -> None:
    with counting(sd1) as calls:
        draw(sd1, guidance_scale=1.0)

    assert (calls.encoders, calls.tokenizers) == (1, 1)


def test_weights_and_long_prompts_too(sd1: Engine) -> None:
    texts = {"prompt": "a (red:1.3) square " + "and more " * 30, "negative_prompt": "a (star:1.2)"}
    with counting(sd1) as once:
        draw(sd1, **texts)
    with counting(sd1) as often:
        draw(sd1, **texts, num_images=4, hires=HIRES)

    assert (often.encoders, often.tokenizers) == (once.encoders, once.tokenizers)


def test_each_text_of_a_prompt_that_changes_by_step_too(sd1: Engine) -> None:
    with counting(sd1) as calls:
        draw(sd1, prompt="a [cat:dog:0.5]", num_images=4, hires=HIRES)

    assert (calls.encoders, calls.tokenizers) == (3, 3)


def test_two_encoders_read_it_once_each(engines: dict[str, Engine]) -> None:
    with counting(engines["sdxl"]) as calls:
        draw(engines["sdxl"], num_images=3, negative_prompt="a star", hires=HIRES)

    assert (calls.encoders, calls.tokenizers) == (4, 4)


@pytest.mark.parametrize(("family", "encoders"), [("sd3", 6), ("flux", 2)])
def test_so_do_those_that_diffusers_encodes(family: str, encoders: int, more_engines: dict[str, Engine]) -> None:
    with counting(more_engines[family]) as calls:
        draw(more_engines[family], num_images=3, guidance_scale=4.0)

    assert calls.encoders == encoders


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_a_later_job_with_the_same_prompts_encodes_nothing(family: str, kits: Kits) -> None:
    engine = load_engine(**kits[family].settings())
    texts = {"prompt": "a red square", **({"negative_prompt": "a star"} if family != "flux" else {})}
    with counting(engine) as calls:
        before = picture(engine, **texts)
        first = calls.encoders
        again = picture(engine, **texts)
        same = calls.encoders
        other = picture(engine, **{**texts, "prompt": "a blue star"})

    assert same == first > 0
    assert_same(again, before)
    with counting(engine):
        assert_same(other, picture(engine, **{**texts, "prompt": "a blue star"}))
    assert ImageChops.difference(other, before).getbbox()


def test_what_a_lora_has_made_of_a_prompt_is_no_other_jobs(kits: Kits) -> None:
    engine = load_engine(**kits["sd1"].settings("loras"))
    plain = picture(engine)
    wordy = picture(engine, lora="wordy")
    assert ImageChops.difference(wordy, plain).getbbox()
    assert_same(picture(engine), plain)
    assert_same(picture(engine, lora="wordy"), wordy)
