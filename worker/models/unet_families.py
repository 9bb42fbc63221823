"""The families that draw with a UNet: Stable Diffusion 1.x, 2.x and XL, and what was made of them."""

from types import MappingProxyType

from worker.models.family import Family

# Of UNets; beyond, a GPU has no more to gain. Transformers keep it busy with a single picture.
_BATCH = 8 * 512 * 512
_BATCH_XL = 4 * 1024 * 1024

# As the Turbo models are published. Models that predict v are sampled so too, and take as many steps as others.
_TURBO = {"scheduler.timestep_spacing": "trailing", "scheduler.prediction_type": "epsilon"}

# The schedule of models that were distilled to few steps: 999, 749, 499, 249.
_TRAILING = "Euler SGM Uniform"

UNET_FAMILIES: tuple[Family, ...] = (
    Family(
        name="shapes",
        title="the embedded model",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.cross_attention_dim": 192}),
        steps=20,
        guidance_scale=2.0,
        max_pixels=512 * 512,
        batch_pixels=_BATCH,
    ),
    Family(
        name="lcm-sd1",
        title="Stable Diffusion 1.x, distilled to LCM",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"scheduler._class_name": "LCMScheduler"}),
        steps=8,
        guidance_scale=1.5,
        max_pixels=1024 * 1024,
        batch_pixels=_BATCH,
    ),
    Family(
        name="sd-turbo",
        title="Stable Diffusion Turbo",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.use_linear_projection": True, **_TURBO}),
        steps=4,
        guidance_scale=0.0,
        max_pixels=1024 * 1024,
        batch_pixels=_BATCH,
    ),
    Family(
        name="hyper-sd1",
        title="Stable Diffusion 1.x, distilled to few steps (Hyper-SD)",
        pipeline="StableDiffusionPipeline",
        named=r"hyper[-_ ]?sd|lightning",
        steps=4,
        guidance_scale=0.0,
        max_pixels=1024 * 1024,
        scheduler=_TRAILING,
        batch_pixels=_BATCH,
    ),
    Family(
        name="sd2",
        title="Stable Diffusion 2.x",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.use_linear_projection": True}),
        steps=50,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
        batch_pixels=_BATCH,
    ),
    Family(
        name="sd1",
        title="Stable Diffusion 1.x",
        pipeline="StableDiffusionPipeline",
        steps=50,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
        scheduler="LMS",
        batch_pixels=_BATCH,
    ),
    Family(
        name="lcm-sdxl",
        title="Stable Diffusion XL, distilled to LCM",
        pipeline="StableDiffusionXLPipeline",
        traits=MappingProxyType({"scheduler._class_name": "LCMScheduler"}),
        steps=8,
        guidance_scale=1.5,
        max_pixels=2048 * 2048,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="sdxl-turbo",
        title="Stable Diffusion XL Turbo",
        pipeline="StableDiffusionXLPipeline",
        traits=MappingProxyType({"unet.sample_size": 64, **_TURBO}),
        steps=4,
        guidance_scale=0.0,
        max_pixels=2048 * 2048,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="sdxl-lightning",
        title="Stable Diffusion XL, distilled to few steps (Lightning, Hyper-SD, Turbo)",
        pipeline="StableDiffusionXLPipeline",
        named=r"lightning|hyper[-_ ]?sd|turbo",
        steps=4,
        guidance_scale=0.0,
        max_pixels=2048 * 2048,
        scheduler=_TRAILING,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        steps=25,
        guidance_scale=7.5,
        max_pixels=2048 * 2048,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="instruct-pix2pix",
        title="InstructPix2Pix",
        pipeline="StableDiffusionInstructPix2PixPipeline",
        steps=100,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
    ),
    Family(
        name="instruct-pix2pix-xl",
        title="InstructPix2Pix XL",
        pipeline="StableDiffusionXLInstructPix2PixPipeline",
        steps=100,
        guidance_scale=5.0,
        max_pixels=2048 * 2048,
    ),
)
