"""What a ControlNet takes beside the picture that it follows: a mode, a mask, and which others at once.

The names of modes are those under which union ControlNets are published: xinsir's for Stable Diffusion XL, InstantX's
and Shakker Labs' for FLUX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

OWN_CONTROL = "control"  # how a request may name what the model itself follows

# Mode by mode, every name of it.
SDXL_MODES = (
    ("openpose", "pose"),
    ("depth",),
    ("scribble", "hed", "pidi", "ted", "softedge"),
    ("canny", "lineart", "anime_lineart", "mlsd"),
    ("normal",),
    ("segment",),
    ("tile",),
    ("repaint", "inpaint"),
)
REPAINT = 7  # of them: it follows a picture whose masked part is black
FLUX_MODES = (("canny",), ("tile",), ("depth",), ("blur",), ("pose", "openpose"), ("gray",), ("lq", "low_quality"))


@dataclass(frozen=True)
class ControlKind:
    """What one ControlNet takes.

    Attributes:
        alike: equal for those that can be followed at once.
        modes: how many it has, of which a request names one; 0 for a ControlNet that follows one kind of picture.
        names: name of a mode -> its number.
        needs_mask: whether it is for inpainting only.
        alone: whether no other can be followed beside it. One that needs no mask can be followed twice.
        built_in: whether it is the model itself, which follows a picture with all its weights, in every step.
        repaint: the mode that follows a picture with a hole where the mask is, or None.
    """

    alike: str = ""
    modes: int = 0
    names: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    needs_mask: bool = False
    alone: bool = False
    repaint: int | None = None
    built_in: bool = False

    def find_mode(self, given: int | str | None, name: str) -> int | None:
        """The mode that is meant; None if it cannot be told.

        Args:
            given: by name or number, as a request says it.
            name: of the ControlNet; one that is offered as `canny` is asked for that.
        """
        if given is None:
            return 0 if self.modes == 1 else self.names.get(_spell(name))
        wanted = _spell(str(given))
        number = self.names.get(wanted, int(wanted) if wanted.isascii() and wanted.isdigit() else self.modes)
        return number if number < self.modes else None

    def list_modes(self) -> str:
        """What a request may say, for people."""
        names = f"{', '.join(self.names)}, or " if self.names else ""
        return f"{names}0 to {self.modes - 1}"

    def follows_hole(self, mode: int | None) -> bool:
        """Whether the part of its picture that a mask covers is to be hidden from it."""
        return self.needs_mask or (mode is not None and mode == self.repaint)


def _spell(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def name_modes(names: Sequence[Sequence[str]], count: int) -> Mapping[str, int]:
    """Every name of the first modes, so many as there are."""
    return MappingProxyType({name: mode for mode, alike in enumerate(names[:count]) for name in alike})
