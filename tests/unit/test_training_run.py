"""The training runs from nothing to a model that plain diffusers loads, and the model is used as it was trained."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTokenizer

from training import data, diffusion, models, train, vae
from training.clock import Clock
from training.data import PoolMaker, described
from training.diffusion import LATENT, Denoiser, Material, train_denoiser
from training.scenes import pack, realise
from training.tokenizer import build_tokenizer, encode

# Widths that a processor trains in seconds; everything else as in `training.models`.
SMALL_VAE = {"block_out_channels": (8, 8, 8, 8)}
SMALL_UNET = {"block_out_channels": (8, 16, 16), "attention_head_dim": 2}


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    """The model of a run of two steps in every stage, in three sittings: the limit ends the first two."""
    folder = tmp_path_factory.mktemp("made")
    small = {"build_vae": AutoencoderKL.from_config({**models.build_vae().config, **SMALL_VAE})}
    small["build_unet"] = UNet2DConditionModel.from_config({**models.build_unet().config, **SMALL_UNET})
    options = ["--folder", str(folder / "run"), "--model", str(folder / "model"), "--scenes", "20"]
    options += ["--vae", "0.01", "--unet", "0.01", "--polish", "0.01", "--batch", "2", "--pictures", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "KEEP_EVERY", 1)
        # Each process would import torch; test_the_result_reads_captions_as_the_training_did has real ones.
        patch.setattr(data, "ProcessPoolExecutor", lambda n, _, start, given: ThreadPoolExecutor(n, "", start, given))
        patch.setattr(
            train, "build_tokenizer", lambda: tokenizer
        )  # the same whenever it is built, as another test says
        for name, net in small.items():
            patch.setattr(train, name, lambda net=net: type(net).from_config(net.config))
        train.main([*options, "--limit", "1e-9"])
        assert not (folder / "model").exists()
        train.main(options)
        train.main(options)
    return folder


def test_plain_diffusers_loads_the_result(made: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(made / "model")
    pipe.set_progress_bar_config(disable=True)
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}
    assert json.loads((made / "model/text_encoder/config.json").read_text())["dtype"] == "float32"
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe("a red circle", num_inference_steps=2, output_type="np").images.shape == (1, 256, 256, 3)


def test_the_result_reads_captions_as_the_training_did(made: Path, tokenizer: CLIPTokenizer) -> None:
    """The same ids from processes that make the pool and from the exported tokenizer, padded as the pipeline does."""
    pipe = StableDiffusionPipeline.from_pretrained(made / "model")
    pool = PoolMaker(20, tokenizer, chunk=8, processes=2).ready()
    captions = [text for seed, count in enumerate((8, 8, 4)) for text in described(seed, count)[1]]
    ids = pipe.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    assert torch.equal(pool.tokens.flatten(0, 1).long(), ids)
    text = pipe.text_encoder(torch.from_numpy(encode(tokenizer, ["", captions[0]])).long()).last_hidden_state
    prompt, empty = pipe.encode_prompt(captions[0], "cpu", 1, True)
    assert torch.equal(torch.cat([empty, prompt]), text)


def test_the_right_velocity_gives_back_the_latents_with_every_scheduler() -> None:
    """Whatever noise a sampler starts from, an oracle's velocity leads it to the latents, as training defines it."""
    latents = torch.randn(1, 4, 8, 8)
    base = models.build_scheduler()
    kinds = (DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, PNDMScheduler)
    for scheduler in (base, *(kind.from_config(base.config) for kind in kinds)):
        scheduler.set_timesteps(20)
        sample = torch.randn(latents.shape) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            scaled = scheduler.scale_model_input(sample, time)
            at = float(time)
            alpha = base.alphas_cumprod[int(at)].lerp(base.alphas_cumprod[min(int(at) + 1, 999)], at - int(at))
            velocity = (alpha.sqrt() * scaled - latents) / (1 - alpha).sqrt()
            sample = scheduler.step(velocity, time, sample).prev_sample
        assert (sample - latents).std() < 0.15, type(scheduler).__name__


def test_the_target_leads_back_to_the_latents_from_every_input() -> None:
    torch.manual_seed(0)
    latents = torch.randn(4000, 1, 2, 2)
    alphas = models.build_scheduler().alphas_cumprod
    noisy, velocity, times, weight = diffusion.noised(latents, alphas)
    alpha = alphas[times][:, None, None, None]
    assert torch.allclose(alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity, latents, atol=1e-4)
    assert weight.max() == 1 and weight.min() < 0.02
    late = times > diffusion.PURE_NOISE_FROM
    assert 0.03 < late.float().mean() < 0.09
    ordinary = ((velocity - (alpha.sqrt() * noisy - latents) / (1 - alpha).sqrt()).abs() < 1e-3).all()
    assert ordinary and velocity.abs().max() < 12


def test_folding_the_latents_scale_leaves_pictures_as_they_are() -> None:
    torch.manual_seed(0)
    net = AutoencoderKL.from_config({**models.build_vae().config, **SMALL_VAE}).eval()
    specs, _, random = described(0, 6)
    scenes = pack([realise(spec, random) for spec in specs])
    with torch.no_grad():
        before = net.post_quant_conv(vae.encode(net, scenes) / models.SCALING_FACTOR)
        vae.normalise(net, scenes)
        latents = vae.encode(net, scenes)
        after = net.post_quant_conv(latents / models.SCALING_FACTOR)
    assert torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3)


def test_the_model_fits_into_git(tokenizer: CLIPTokenizer) -> None:
    """At two bytes a weight: 25 MB in all, no file over 16 MiB."""
    nets = (models.build_vae(), models.build_unet(), models.build_text_encoder(tokenizer))
    sizes = [2 * sum(p.numel() for p in net.parameters()) for net in nets]
    assert max(sizes) < 15.9 * 2**20 and sum(sizes) < 24.8e6


def test_a_resumed_average_goes_on_from_where_it_was(tokenizer: CLIPTokenizer) -> None:
    unet = UNet2DConditionModel.from_config({**models.build_unet().config, **SMALL_UNET})
    net = Denoiser(unet, models.build_text_encoder(tokenizer))
    average = net.average()
    far = [parameter.add_(1.0).clone() for parameter in average.parameters()]
    ids = torch.from_numpy(encode(tokenizer, [""])).long()
    material = Material(torch.zeros(1, *LATENT), ids[None], ids[0])
    train_denoiser(net, average, material, Clock(1.0, spent=1 - 1e-6), 2, lambda: None)
    moved = max(float((now - then).abs().max()) for now, then in zip(average.parameters(), far, strict=True))
    assert 0 < moved < 0.01
