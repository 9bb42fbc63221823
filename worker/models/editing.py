"""Models that draw from pictures by an instruction: how many pictures their pipelines take, and whether they need one.

Facts of diffusers' classes and of what their models were trained on; it knows no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MAX_REFERENCES = 10  # of any model
# For which memory is kept free: one that is edited, or two, of which one has what the other is to get. Most jobs bring
# no more, and each more would take a gigabyte from all of them; a job that does bring more has what else is free.
ORDINARY_REFERENCES = 2
MAX_LAYERS = 10  # that a picture is split into
DEFAULT_LAYERS = 4
SEEN_PIXELS = 1024 * 1024  # of each of them, to which pipelines scale what they look at


@dataclass(frozen=True)
class Sides:
    """Of a reference picture, where a pipeline scales none and its parts would each see another size.

    Attributes:
        shortest, longest: in pixels, of any side.
        step: sides are multiples of it, in pixels.
    """

    shortest: int
    longest: int
    step: int

    def fit(self, size: tuple[int, int], aspect: int) -> tuple[int, int]:
        """The size nearest to this one, of `SEEN_PIXELS` at most if the shortest side may be so short.

        Args:
            aspect: how many times as long as the other one side may be.
        """
        scale = min(1.0, math.sqrt(SEEN_PIXELS / (size[0] * size[1])))
        scale = max(scale, self.shortest / min(size))
        sides = [max(self.shortest, round(side * scale / self.step) * self.step) for side in size]
        longest = min(self.longest, aspect * min(sides))
        width, height = (min(side, longest) for side in sides)
        while width * height > SEEN_PIXELS and max(width, height) > self.shortest:
            width, height = (width - self.step, height) if width > height else (width, height - self.step)
        return width, height


@dataclass(frozen=True)
class Editing:
    """What one pipeline's call does with reference pictures.

    Attributes:
        references: it takes so many at most.
        from_prompt: whether it draws from a prompt alone, too.
        aspect: how many times as long as the other one side of a picture may be.
        max_tokens: of a prompt, beyond which the pipeline fails or does without a picture; 0 where it cuts the prompt.
        splits: whether what it draws are transparent layers, that together are the picture it was given.
        sides: what it is handed has such ones; None where it scales pictures itself.
        drawn_over: whether it draws in the size of its picture, or stretches that to its own: it is handed one of the
            size that is asked for.
        listed: whether a single picture is handed over in a list, too.
        placeholder: what in a prompt the pipeline takes for one of its pictures, beside its processor's own tokens.
        share: what the pixel of a picture takes in memory while it draws, of what it does in FLUX.2 dev.
    """

    references: int
    from_prompt: bool = True
    aspect: int = 128
    max_tokens: int = 0
    splits: bool = False
    sides: Sides | None = None
    drawn_over: bool = False
    listed: bool = False
    placeholder: str = ""
    share: float = 1.0

    def count_seen(self, pixels: int) -> int:
        """Pixels of reference pictures that would take as much memory in FLUX.2 dev as an ordinary job's do here.

        Where pictures are split, their layers are drawn at once, beside one more of all of them, and decoded one by
        one.

        Args:
            pixels: of what is drawn.
        """
        if self.splits:
            return (DEFAULT_LAYERS + 1) * pixels
        return round(min(self.references, ORDINARY_REFERENCES) * SEEN_PIXELS * self.share)


# Of the 4096 places that Qwen's transformer has for a prompt, pictures take up to 1369 there and the latents 256.
_QWEN_TOKENS = 2048
# Of the 4096 that JoyAI's has, pictures stand before the prompt, and what is too long is cut in front.
_JOY_TOKENS = 2048

# Of the 1024 places that Kandinsky 5 has for a prompt and the picture behind it, the largest takes 455: it is seen at
# half its size, in squares of 28 pixels.
_KANDINSKY_TOKENS = 550
_JOY = "<image>\n"

# By text-to-image pipeline, or the model's only one.
EDITORS: Mapping[str, Editing] = MappingProxyType(
    {
        "FluxKontextPipeline": Editing(1),
        "Flux2Pipeline": Editing(MAX_REFERENCES, aspect=8),
        "Flux2KleinPipeline": Editing(4, aspect=8, share=2 / 3),  # its largest has layers two thirds as wide
        "QwenImage21Pipeline": Editing(MAX_REFERENCES),
        "ZImageOmniPipeline": Editing(MAX_REFERENCES, aspect=8),
        "LongCatImageEditPipeline": Editing(1, from_prompt=False, max_tokens=512),
        "QwenImageEditPipeline": Editing(1, from_prompt=False, max_tokens=_QWEN_TOKENS),
        "QwenImageEditPlusPipeline": Editing(3, from_prompt=False, max_tokens=_QWEN_TOKENS),
        "QwenImageLayeredPipeline": Editing(1, from_prompt=False, splits=True),
        # Its language model reads patches of half the picture, twice as large as those that its transformer sees. Keys
        # and values of 30 layers are kept for all steps: 1,920 bytes a pixel.
        "GlmImagePipeline": Editing(1, aspect=4, sides=Sides(512, 2048, 32), listed=True, share=2.0),
        # Guided, three pictures go through the UNet at once, where other models have two.
        "StableDiffusionInstructPix2PixPipeline": Editing(1, from_prompt=False, drawn_over=True, share=0.2),
        "StableDiffusionXLInstructPix2PixPipeline": Editing(1, from_prompt=False, drawn_over=True, share=0.8),
        # The picture's latents are further channels of those that are drawn.
        "Kandinsky5I2IPipeline": Editing(
            1, from_prompt=False, max_tokens=_KANDINSKY_TOKENS, drawn_over=True, share=0.0
        ),
        "JoyImageEditPipeline": Editing(  # layers two thirds as wide
            1, max_tokens=_JOY_TOKENS, placeholder=_JOY, share=2 / 3
        ),
        # Both of what guidance compares go through them at once.
        "JoyImageEditPlusPipeline": Editing(
            5, from_prompt=False, max_tokens=_JOY_TOKENS, listed=True, placeholder=_JOY, share=4 / 3
        ),
    }
)
