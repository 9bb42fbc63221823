"""What may be asked with the pictures that a job brings: to start from, to edit, with a mask, or room around them.

Rules as those of `validators.py`.
"""

from collections.abc import Iterator

from worker.api.schema import Fields
from worker.api.sources import choose_sources, has_mask
from worker.api.validation_errors import Problem
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT, Capabilities


def refuse(field: str, capabilities: Capabilities, lack: str) -> Problem:
    """What is said of a field that the model cannot honour."""
    return Problem(field, f"{capabilities.family.title} {lack}; leave it out")


def check_image(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A model may be unable to start from any picture."""
    source = choose_sources(fields, capabilities).image
    if source is None or capabilities.can_start(IMAGE):
        return
    if has_mask(fields):
        can = capabilities.can_start(MASK) or EDIT in capabilities.tasks  # where the mask is refused, not the picture
    else:  # models that draw nothing but what is masked may find it transparent
        can = TEXT not in capabilities.tasks and capabilities.can_start(MASK)
    if not can:
        yield refuse(source.field.partition(".")[0], capabilities, "cannot start from a picture")


def check_images(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A model takes so many to edit; beside a picture to start from, others need a use."""
    sources, editing = choose_sources(fields, capabilities), capabilities.editing
    count, limit = len(sources.references), editing.references if editing else 0
    if sources.edits and count > limit:
        pictures = "one picture" if limit == 1 else f"{limit} pictures"
        yield Problem("images", f"{capabilities.family.title} edits {pictures} at most, this asks for {count}")
    elif not sources.edits and count:
        refers = has_mask(fields) and capabilities.accepts(MASK, "image_reference")
        if not refers:
            lack = "" if EDIT in capabilities.tasks else f"; {capabilities.family.title} edits none by an instruction"
            yield Problem("images", f"a job starts from one picture; others can speak through ip_adapter{lack}")
        elif count > 1:
            yield Problem("images", "beside the masked picture one can be looked at")


def check_layers(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """Few models split pictures, and JPEG holds nothing transparent."""
    if fields.layers is not None and not capabilities.splits:
        yield refuse("layers", capabilities, "draws pictures in one piece")
    if capabilities.splits and getattr(fields, "output_format", None) == "jpeg":
        lack = "draws transparent layers, which JPEG cannot hold; take png or webp"
        yield Problem("output_format", f"{capabilities.family.title} {lack}")


def check_start(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A model that draws from pictures only is given one; a picture that failed is told of by itself."""
    if TEXT in capabilities.tasks:
        return
    title, missing = capabilities.family.title, fields.image is None and fields.images is None
    if EDIT in capabilities.tasks and missing:
        yield Problem("image", f"{title} draws from no prompt alone; give the picture to edit")
    elif MASK in capabilities.tasks and EDIT not in capabilities.tasks and missing:
        yield Problem("image", f"{title} draws what a mask covers; give a picture with a mask or outpaint")
    elif TEXT + CONTROLLED in capabilities.tasks and fields.controlnet is None:
        yield Problem("controlnet", f'{title} draws after a picture that it follows; give {{"image": ...}}')


def check_mask(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A mask is of a picture, for a model that inpaints."""
    if fields.mask is not None and not capabilities.can_start(MASK):
        yield refuse("mask", capabilities, "cannot inpaint")
    if fields.mask is not None and fields.image is None and fields.images is None:
        yield Problem("mask", "needs an image beside it, whose masked part is drawn anew")


def check_outpaint(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """A picture is drawn on beyond some of its sides, by a model that inpaints; that says the size."""
    sides = fields.outpaint
    if sides is None:
        return
    if not capabilities.can_start(MASK):
        yield refuse("outpaint", capabilities, "cannot inpaint, as drawing on beyond the edges does")
    if fields.image is None and fields.images is None:
        yield Problem("outpaint", "needs an image beside it, which is drawn on beyond its edges")
    if not (sides.left or sides.right or sides.top or sides.bottom):
        yield Problem("outpaint", "should be 1 pixel at least on one of left, right, top, bottom")
    if (fields.width, fields.height) != (None, None):
        yield Problem("outpaint", "the picture and its sides say the size; leave width and height out")


def check_strength(fields: Fields, capabilities: Capabilities) -> Iterator[Problem]:
    """Editing has no strength."""
    if fields.strength is not None and choose_sources(fields, capabilities).edits:
        yield refuse("strength", capabilities, "edits by instruction alone, without a strength")
