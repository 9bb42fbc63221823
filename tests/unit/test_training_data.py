"""What the model learns from: nothing held out slips in, captions say what is drawn, every word is one token."""

import ast
import os
import subprocess
import sys
from random import Random

import pytest
from transformers import CLIPTokenizer

from training import captions
from training.captions import caption
from training.cases import handwritten, held_out
from training.scenes import realise, sample_spec
from training.tokenizer import build_tokenizer, encode
from training.world import COLOURS, HELD_OUT, SHAPES, SIDE


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def test_no_training_scene_holds_a_held_out_combination() -> None:
    random = Random(0)
    scenes = [realise(sample_spec(random), random) for _ in range(3000)]
    shown = {(o.colour, o.shape, scene.background) for scene in scenes for o in scene.objects}
    assert not shown & HELD_OUT


def test_every_held_out_prompt_asks_for_one() -> None:
    for case in held_out(100):
        assert any((t.colour, t.shape, case.spec.background) in HELD_OUT for t in case.spec.things)


def test_objects_lie_inside_the_picture_and_apart() -> None:
    random = Random(1)
    for _ in range(1000):
        objects = realise(sample_spec(random), random).objects
        for n, a in enumerate(objects):
            assert a.radius <= a.x <= SIDE - a.radius and a.radius <= a.y <= SIDE - a.radius
            assert all(max(abs(a.x - b.x), abs(a.y - b.y)) > a.radius + b.radius for b in objects[:n])


def test_captions_name_what_their_spec_holds() -> None:
    random = Random(2)
    plain = ("triangle", "star", "heart")  # the shapes with no synonym that lacks the word itself
    for _ in range(500):
        spec = sample_spec(random)
        text = caption(spec, random)
        assert all(t.shape in text for t in spec.things if t.shape in plain)
        assert spec.background is None or any(word in text for word in captions.COLOUR_WORDS[spec.background])
        assert spec.layout != "between" or "between" in text
    assert len(SHAPES) >= 8


def test_no_word_means_two_colours() -> None:
    words = [word for colour in COLOURS for word in sorted({*captions.COLOUR_WORDS[colour]})]
    assert len(words) == len({*words})


def test_a_few_captions_say_one_word_or_nothing() -> None:
    random = Random(4)
    bare = [spec for spec in (sample_spec(random) for _ in range(2000)) if spec.layout == "bare"]
    assert 50 < len(bare) < 160
    assert {len(spec.things) for spec in bare} == {1, 2, 3}
    assert all(len(caption(spec, random)) < 40 for spec in bare)


def test_every_word_is_one_token_and_any_text_can_be_read(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.tokenize("A BIG doughnut, underneath") == [
        "a</w>",
        "big</w>",
        "doughnut</w>",
        ",</w>",
        "underneath</w>",
    ]
    assert encode(tokenizer, ["", "zebra café"]).shape == (2, 77)
    for text in ("ß Ω 円 🌟 \x00\x07", "\u200d".join("xyz"), "".join(map(chr, range(0x20, 0x250)))):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids[1:-1]
    tables = (captions.SHAPE_WORDS, captions.COLOUR_WORDS, captions.SIZE_WORDS, captions.STYLE_WORDS)
    words = {word for table in tables for choices in table.values() for choice in choices for word in choice.split()}
    assert {word for word in words if len(tokenizer.tokenize(word)) > 1} <= {"five-pointed"}
    assert max(len(tokenizer(case.prompt).input_ids) for case in handwritten()) <= 77


def test_the_tokenizer_is_the_same_whenever_it_is_built(tokenizer: CLIPTokenizer) -> None:
    """A training that goes on in another process builds it again."""
    program = "import sys; from training.tokenizer import build_tokenizer as b; sys.stdout.write(str(b().get_vocab()))"
    other = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True)
    assert ast.literal_eval(other.stdout) == tokenizer.get_vocab()


def test_there_are_fifty_prompts_by_hand() -> None:
    assert len(handwritten()) >= 50
