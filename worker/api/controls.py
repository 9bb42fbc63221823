"""What may be asked of each ControlNet, and of several at once: a picture, a mode, a mask.

Rules as those of `validators.py`, about what `models/control_kinds.py` says of the ControlNets that are loaded.
"""

from collections.abc import Iterator

from worker.api.schema import ControlField, Fields
from worker.api.validation_errors import Problem
from worker.models.capabilities import CONTROLLED, MASK, Capabilities
from worker.models.control_kinds import ControlKind


def check_control_modes(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A union ControlNet needs a mode that it has; others take none."""
    for control, name, kind in _list_known(fields, capabilities):
        if control.mode is not None and not kind.modes:
            yield Problem("controlnet", f"{name} follows one kind of picture; leave its mode out")
        elif kind.modes and kind.find_mode(control.mode, name) is None:
            came = "needs a mode" if control.mode is None else f"has no mode {str(control.mode)[:80]!r}"
            yield Problem("controlnet", f"{name} {came}; it takes {kind.list_modes()}")


def check_control_pictures(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """One for inpainting needs a mask, and follows the job's image if it brings none; others bring a picture."""
    masked = fields.image is not None or fields.images is not None
    for control, name, kind in _list_known(fields, capabilities):
        mode = kind.find_mode(control.mode, name) if kind.modes else None
        if kind.needs_mask and not masked:
            yield Problem("controlnet", f"{name} is for inpainting; give an image and a mask beside it")
        elif control.image is None and not kind.follows_hole(mode):
            yield Problem("controlnet", f"{name} needs an image, the picture that it follows")
        elif control.image is None and not masked:
            yield Problem("controlnet", f"{name} needs an image, its own or the job's")


def check_own_control(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A model that follows a picture by its own weights does so with all of them, in every step, and one picture."""
    known = [(control, kind) for control, _, kind in _list_known(fields, capabilities)]
    for control, kind in known:
        if kind.built_in and (control.scale, control.start, control.end) != (1.0, 0.0, 1.0):
            title = capabilities.family.title
            yield Problem("controlnet", f"{title} follows its picture in full; leave scale, start and end out")
    if len(known) > 1 and any(kind.built_in for _, kind in known):
        yield Problem("controlnet", f"{capabilities.family.title} follows one picture")


def check_control_mask(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """Some families have ControlNets for inpainting, and no inpainting with others."""
    if fields.mask is None or not capabilities.accepts(MASK + CONTROLLED, "control_mask"):
        return
    for _, name, kind in _list_known(fields, capabilities):
        if not kind.needs_mask:
            lack = "takes a mask only with a ControlNet for inpainting"
            yield Problem("controlnet", f"{capabilities.family.title} {lack}, which {name} is not")


def check_control_mix(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """Only ControlNets of one kind can be followed at once."""
    known = [(name, kind) for _, name, kind in _list_known(fields, capabilities)]
    for name, kind in known[1:]:
        first, other = known[0]
        if kind.alike != other.alike:
            yield Problem("controlnet", f"{first} and {name} are of different kinds; they cannot be followed at once")
        elif kind.alone and (name != first or kind.needs_mask):
            yield Problem("controlnet", f"{name} cannot be followed beside another")


def _list_known(fields: Fields, capabilities: Capabilities) -> Iterator[tuple[ControlField, str, ControlKind]]:
    """Those that there are; others are refused by rules of their own."""
    for control in fields.controlnet or []:
        name = control.name or next(iter(capabilities.controlnets), None)
        if name in capabilities.controlnets:
            yield control, str(name), capabilities.control_kind(name)
