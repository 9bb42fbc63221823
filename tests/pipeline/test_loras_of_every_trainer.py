"""A LoRA file acts as the exact product of its factors, whoever wrote it and however it names them."""

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageChops
from safetensors.torch import save_file
from torch import Tensor

from tests.helpers import tiny_addons
from tests.helpers.drawing import assert_same, bytes_alive, load_engine, picture
from tests.helpers.fuzzing import examples
from tests.helpers.lora_forms import FORMS, KERNEL_FORMS, Form, Maker, list_layers
from tests.helpers.plain_diffusers import EULER, plain, plainly
from tests.helpers.tiny_addons import FAMILIES, Kits
from worker.engine.adapters.loras import LoraFiles, LoraManager
from worker.engine.engine import Engine
from worker.request import Lora

FEW = {"num_inference_steps": 2}
PEFT = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
DIFFUSERS = {"lora_down.weight": "lora.down.weight", "lora_up.weight": "lora.up.weight"}
# How a layer of each component may be named; {} has dots, {_} has underscores.
SPELLINGS = {
    "unet": ("lora_unet_{_}", "unet.{}", "{}", "base_model.model.{}", "diffusion_model.{}"),
    "transformer": ("lora_unet_{_}", "lora_transformer_{_}", "lycoris_{_}", "transformer.{}", "base_model.model.{}"),
    "text_encoder": ("lora_te_text_model_{_}", "lora_te1_text_model_{_}", "text_encoder.text_model.{}"),
    "text_encoder_2": ("lora_te2_text_model_{_}", "text_encoder_2.text_model.{}", "text_encoder_2.{}"),
}
Exact = dict[tuple[str, str], Tensor]  # component and layer -> what is added to its weights


class Bench:
    """One model whose layers can be asked what acts in them, and a folder for files."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.places: dict[str, str] = {}
        self.manager = LoraManager(engine.pipeline, engine.runners[0], LoraFiles(self.places, Path), {})
        self._numbers = itertools.count()
        self.layers = {
            (component, name): weight
            for component in engine.pipeline._lora_loadable_modules
            if (part := getattr(engine.pipeline, component)) is not None
            for name, weight in list_layers(part).items()
        }

    def write(self, weights: Mapping[str, Tensor], header: dict[str, str] | None = None, file: str = "") -> str:
        """A new file. Returns its name."""
        name = f"{next(self._numbers)}"
        path = self.folder / name / (file or "lora.safetensors")
        path.parent.mkdir()
        save_file({key: one.contiguous() for key, one in weights.items()}, path, header)
        self.places[name] = str(path)
        return name

    @contextmanager
    def active(self, *loras: Lora) -> Iterator[list[str]]:
        """Inside the `with` these act. Yields the warnings."""
        with self.manager.activate(loras):
            yield self.manager.list_warnings(loras)

    @torch.no_grad()
    def added(self, component: str, name: str, x: Tensor) -> Tensor:
        """What a layer's output has beyond its own."""
        layer = getattr(self.engine.pipeline, component).get_submodule(name)
        own = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
        return layer(x) - own(x)  # type: ignore[no-any-return]

    def assert_adds(self, exact: Exact, scale: float = 1.0) -> None:
        """These layers and no others compute with these weights added."""
        for (component, name), weight in self.layers.items():
            layer: Any = getattr(self.engine.pipeline, component).get_submodule(name)
            x = torch.randn(2, weight.shape[1], *([6, 6] if weight.dim() == 4 else []))
            came = self.added(component, name, x)
            delta = exact.get((component, name), torch.zeros_like(weight)).float() * scale
            if weight.dim() == 4:
                own = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
                needed = F.conv2d(x, delta, stride=own.stride, padding=own.padding)
            else:
                needed = F.linear(x, delta)
            torch.testing.assert_close(came, needed, rtol=1e-3, atol=2e-4 * max(1.0, abs(scale)), msg=f"{name}")


@pytest.fixture(scope="module")
def benches(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    """Family -> its bench."""
    return {
        family: Bench(load_engine(MODEL_NAME=str(kits[family].model)), tmp_path_factory.mktemp(family))
        for family in FAMILIES
    }


def spell(form: Form, spelling: str, layer: str, names: Mapping[str, str] = {}) -> dict[str, Tensor]:
    """The factors as a file has them."""
    layer = layer.removeprefix("text_model.")  # which stands in the spelling
    key = spelling.replace("{_}", layer.replace(".", "_")).replace("{}", layer)
    return {f"{key}.{names.get(part, part)}": factor for part, factor in form.factors.items()}


@examples(3)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1.0, 0.5, -1.3, 2.0]), share=st.sampled_from([0.2, 1.0, 0.2]))
@pytest.mark.parametrize("family", FAMILIES)
def test_any_mixture_of_forms_and_names_is_the_exact_product(
    family: str, benches: dict[str, Bench], seed: int, scale: float, share: float
) -> None:
    bench, choose, maker = benches[family], random.Random(seed), Maker(seed)
    weights: dict[str, Tensor] = {}
    exact: Exact = {}
    spellings = {component: choose.choice(SPELLINGS[component]) for component, _ in bench.layers}
    for (component, name), weight in bench.layers.items():
        if choose.random() > share and exact:
            continue
        forms = {**FORMS, **(KERNEL_FORMS if weight.dim() == 4 and weight.shape[2] > 1 else {})}
        form = forms[choose.choice(list(forms))](maker, weight)
        names = choose.choice([{}, PEFT, DIFFUSERS]) if spellings[component].endswith("{}") else {}
        weights |= spell(form, spellings[component], name, names)
        exact[component, name] = torch.from_numpy(form.delta)

    with bench.active(Lora(bench.write(weights), scale)) as warnings:
        # Whose files with these names have their alpha in a config beside them.
        unsaid = [one for one in warnings if "adapter_config.json" not in one]
        assert unsaid == []
        bench.assert_adds(exact, scale)
    bench.assert_adds({})


DRAWN = ["LoHa", "LoKr, second of low rank", "DoRA", "LoCon with a middle"]


@pytest.fixture(scope="module")
def drawn_with(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, dict[str, Exact]]:
    """An engine with a file of each of these forms, and what each adds."""
    folder, layers = tmp_path_factory.mktemp("drawn"), list_layers(FAMILIES["sd1"]().unet)
    exact: dict[str, Exact] = {}
    for seed, kind in enumerate(DRAWN):
        maker, weights = Maker(seed), dict[str, Tensor]()
        for name, weight in layers.items():
            if weight.dim() == 4 and weight.shape[2] > 1 if kind in KERNEL_FORMS else "to_" in name:
                form = {**FORMS, **KERNEL_FORMS}[kind](maker, weight)
                weights |= spell(form, "lora_unet_{_}", name)
                exact.setdefault(kind, {})["unet", name] = torch.from_numpy(form.delta).float()
        tiny_addons.write(weights, folder / f"{kind}.safetensors")
    return load_engine(MODEL_NAME=str(kits["sd1"].model), LORA_DIR=str(folder)), exact


@pytest.mark.parametrize("form", DRAWN)
def test_a_picture_is_that_of_a_model_with_the_product_in_its_weights(
    form: str, drawn_with: tuple[Engine, dict[str, Exact]], kits: Kits
) -> None:
    engine, exact = drawn_with
    merged = plain(kits["sd1"].model)
    for (_, name), delta in exact[form].items():
        merged.unet.get_submodule(name).weight.data += delta * 0.5
    untouched = picture(engine, **FEW, **EULER)

    drawn = picture(engine, lora=form, lora_scale=0.5, **FEW, **EULER)

    difference = ImageChops.difference(drawn, plainly(merged, **FEW))
    assert max(high for _, high in difference.getextrema()) <= 1
    assert drawn != untouched
    assert_same(picture(engine, lora=form, lora_scale=0, **FEW, **EULER), untouched)
    assert_same(picture(engine, **FEW, **EULER), untouched)


def test_several_files_of_different_kinds_act_at_once(benches: dict[str, Bench]) -> None:
    """What each adds is added to the model, and not to what another has made of it."""
    bench, maker = benches["sd1"], Maker(9)
    made: list[tuple[str, dict[tuple[str, str], Form]]] = []
    for kind in ("DoRA", "LoRA", "DoRA by inputs", "LoKr"):
        layers = {place: weight for place, weight in bench.layers.items() if "up_blocks.0" in place[1]}
        forms = {place: FORMS[kind](maker, weight) for place, weight in layers.items()}
        weights = {key: one for (_, name), form in forms.items() for key, one in spell(form, "unet.{}", name).items()}
        made.append((bench.write(weights), forms))
    exact = {place: torch.from_numpy(sum(forms[place].delta for _, forms in made)) for place in made[0][1]}

    for order in (made, made[::-1]):
        with bench.active(*(Lora(name, 1.0) for name, _ in order)):
            bench.assert_adds(exact)


def test_the_old_names_of_attention_processors(benches: dict[str, Bench]) -> None:
    bench, maker = benches["sd1"], Maker(3)
    weights: dict[str, Tensor] = {}
    exact: Exact = {}
    for (component, name), weight in bench.layers.items():
        block, _, last = name.replace("to_out.0", "to_out").rpartition(".")
        if component != "unet" or not last.startswith("to_"):
            continue
        form = maker.lora(weight, alpha=None)
        for part, way in (("lora_down.weight", "down"), ("lora_up.weight", "up")):
            weights[f"{block}.processor.{last}_lora.{way}.weight"] = form.factors[part]
        exact[component, name] = torch.from_numpy(form.delta)

    with bench.active(Lora(bench.write(weights), 0.7)) as warnings:
        assert warnings == []
        bench.assert_adds(exact, 0.7)


# Layers of the published Stable Diffusion XL, as kohya's scripts name them, in the tiny one.
SGM = {
    "lora_unet_input_blocks_0_0": "conv_in",
    "lora_unet_input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
    "lora_unet_input_blocks_3_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_out_0": (
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0"
    ),
    "lora_unet_input_blocks_3_1_proj_in": "down_blocks.1.attentions.0.proj_in",
    "lora_unet_middle_block_1_transformer_blocks_0_ff_net_0_proj": (
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
    ),
    "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q": (
        "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "lora_unet_out_2": "conv_out",
}


@pytest.mark.parametrize("form", ["LoRA", "LoKr", "DoRA", "LoHa"])
def test_the_names_of_stable_diffusion_xls_own_code(form: str, benches: dict[str, Bench]) -> None:
    bench, maker = benches["sdxl"], Maker(4)
    made = {key: FORMS[form](maker, bench.layers["unet", layer]) for key, layer in SGM.items()}
    weights = {key: one for name, form in made.items() for key, one in spell(form, name, "").items()}

    with bench.active(Lora(bench.write(weights), 1.0)) as warnings:
        assert warnings == []
        bench.assert_adds({("unet", SGM[key]): torch.from_numpy(form.delta) for key, form in made.items()})


@pytest.mark.parametrize("spelling", ["lora_unet_{_}", "diffusion_model.{}"])
@pytest.mark.parametrize("form", ["LoRA", "LoRA without alpha", "LoKr", "LoHa", "DoRA", "difference"])
def test_one_layer_of_fluxs_own_code_that_is_three_in_diffusers(
    form: str, spelling: str, benches: dict[str, Bench]
) -> None:
    bench, maker = benches["flux"], Maker(6)
    block = "transformer_blocks.0."
    parts = {
        "double_blocks.0.img_attn.qkv": [f"{block}attn.to_q", f"{block}attn.to_k", f"{block}attn.to_v"],
        "double_blocks.0.txt_attn.qkv": [f"{block}attn.add_{one}_proj" for one in "qkv"],
        "double_blocks.0.img_mlp.0": [f"{block}ff.net.0.proj"],
    }
    weights: dict[str, Tensor] = {}
    exact: Exact = {}
    for name, layers in parts.items():
        whole = [bench.layers["transformer", layer] for layer in layers]
        made = FORMS[form](maker, torch.cat(whole))
        weights |= spell(made, spelling, name)
        deltas = torch.from_numpy(made.delta).split([len(one) for one in whole])
        exact |= {("transformer", layer): delta for layer, delta in zip(layers, deltas, strict=True)}

    with bench.active(Lora(bench.write(weights), 0.5)) as warnings:
        assert warnings == []
        bench.assert_adds(exact, 0.5)


def test_fluxs_last_layer_has_scale_and_shift_the_other_way_round(benches: dict[str, Bench]) -> None:
    bench = benches["flux"]
    made = Maker(2).lora(bench.layers["transformer", "norm_out.linear"], alpha=None)
    shift, scale = torch.from_numpy(made.delta).chunk(2)

    with bench.active(Lora(bench.write(spell(made, "lora_unet_final_layer_adaLN_modulation_1", "")), 1.0)) as warnings:
        assert warnings == []
        bench.assert_adds({("transformer", "norm_out.linear"): torch.cat([scale, shift])})


def _peft_file(bench: Bench, maker: Maker) -> tuple[dict[str, Tensor], Exact]:
    weights: dict[str, Tensor] = {}
    exact: Exact = {}
    for (component, name), weight in bench.layers.items():
        if component == "unet" and name.endswith(("to_q", "to_k")):
            form = maker.lora(weight, rank=4, alpha=None)
            weights |= spell(form, "base_model.model.{}", name, PEFT)
            exact[component, name] = torch.from_numpy(form.delta)
    return weights, exact


CONFIG = {"r": 4, "lora_alpha": 6, "alpha_pattern": {"attn1.to_k": 10}}


@pytest.mark.parametrize(("config", "factor"), [(CONFIG, 1 / 4), ({**CONFIG, "use_rslora": True}, 1 / 2)])
@pytest.mark.parametrize("place", ["beside", "header"])
def test_pefts_alpha_comes_from_its_config(
    place: str, config: dict[str, Any], factor: float, benches: dict[str, Bench]
) -> None:
    bench = benches["sd1"]
    weights, exact = _peft_file(bench, Maker(8))
    exact = {key: delta * (10 if key[1].endswith("attn1.to_k") else 6) * factor for key, delta in exact.items()}
    if place == "beside":
        name = bench.write(weights, file="adapter_model.safetensors")
        (bench.folder / name / "adapter_config.json").write_text(json.dumps(config))
    else:
        header = {f"unet.{entry}": value for entry, value in config.items()}
        name = bench.write(weights, {"lora_adapter_metadata": json.dumps(header)})

    with bench.active(Lora(name, 1.0)) as warnings:
        assert warnings == []
        bench.assert_adds(exact)


def test_without_its_config_pefts_alpha_is_the_rank_and_that_is_said(benches: dict[str, Bench]) -> None:
    bench = benches["sd1"]
    weights, exact = _peft_file(bench, Maker(8))
    name = bench.write(weights, file="adapter_model.safetensors")

    with bench.active(Lora(name, 1.0)) as warnings:
        assert [one for one in warnings if "adapter_config.json" in one] == warnings != []
        bench.assert_adds(exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_files_of_any_number_format(dtype: torch.dtype, benches: dict[str, Bench]) -> None:
    bench, maker = benches["sd1"], Maker(1)
    place = next((place, weight) for place, weight in bench.layers.items() if place[1].endswith("to_q"))
    for kind in ("LoRA", "LoKr", "LoHa"):
        form = FORMS[kind](maker, place[1])
        factors = {part: one.to(dtype) for part, one in form.factors.items()}
        with bench.active(Lora(bench.write(spell(Form(factors, form.delta), "unet.{}", place[0][1])), 1.0)):
            came = bench.added(*place[0], torch.eye(place[1].shape[1]))
        torch.testing.assert_close(came.T, torch.from_numpy(form.delta).float(), rtol=0.3, atol=0.15)
        assert came.abs().max() > 0.05


def test_loading_and_dropping_them_leaves_the_model_as_it_was(benches: dict[str, Bench]) -> None:
    """However often, and whatever kinds take turns in one layer."""
    bench, maker = benches["sd1"], Maker(7)
    names = []
    for kind in ("LoKr", "LoRA", "DoRA", "LoHa"):
        forms = {name: FORMS[kind](maker, one) for (_, name), one in bench.layers.items() if "attn2" in name}
        weights = {key: one for name, form in forms.items() for key, one in spell(form, "unet.{}", name).items()}
        names.append(bench.write(weights))

    def use(times: int) -> None:
        for name in names * times:
            with bench.active(Lora(name, 1.0)):
                pass
            bench.manager._make_room(10**12, ())

    use(1)
    held, layers = bytes_alive(), len(list(bench.engine.pipeline.unet.modules()))
    version = bench.engine.runners[0].version
    use(2)

    assert bytes_alive() <= held
    assert len(list(bench.engine.pipeline.unet.modules())) == layers
    assert bench.engine.runners[0].version > version
    bench.assert_adds({})
