"""What the model learns from: nothing held out slips in, captions say what is drawn, every word is one token."""

from random import Random

from training.captions import caption
from training.cases import handwritten, held_out
from training.scenes import realise, sample_spec
from training.tokenizer import build_tokenizer, encode
from training.world import HELD_OUT, SHAPES, SIDE


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
        assert spec.layout != "between" or "between" in text
    assert len(SHAPES) >= 8


def test_every_word_is_one_token_and_any_text_can_be_read() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.tokenize("A BIG doughnut, underneath") == [
        "a</w>",
        "big</w>",
        "doughnut</w>",
        ",</w>",
        "underneath</w>",
    ]
    assert encode(tokenizer, ["", "zebra café"]).shape == (2, 77)
    assert max(len(tokenizer(case.prompt).input_ids) for case in handwritten()) <= 77


def test_the_tokenizer_is_the_same_in_every_process() -> None:
    """The pool's processes each build their own: word ids that differ between them spoil the training."""
    once, again = (build_tokenizer.__wrapped__(300) for _ in range(2))
    assert once.get_vocab() == again.get_vocab()


def test_there_are_fifty_prompts_by_hand() -> None:
    assert len(handwritten()) >= 50
