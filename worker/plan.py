"""Request -> what is drawn, pass by pass."""

from worker.request import Request


def expected_steps(request: Request) -> list[int]:
    """The steps of each pass of a picture, before any scheduler has its say."""
    refinement, strength = request.refinement, request.init_image.strength if request.init_image else 1.0
    shared = refinement.high_noise_frac if refinement else None
    passes = [round(request.num_inference_steps * strength * (shared or 1.0))]
    if refinement and shared:
        passes.append(round(refinement.steps * (1 - shared)))
    if request.hires:
        passes.append(int(request.hires.steps * request.hires.strength))
    if refinement and not shared:
        passes.append(int(refinement.steps * refinement.strength))
    return passes
