"""The dense models against those of Hugging Face and PEFT: names, outputs and gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.oracle.architecture import Architecture, mlp_members, trainable
from tests.oracle.model import Weights, next_token_log_probs
from tests.support import module_list_moe  # noqa: F401 -- makes the model known to the library
from tests.support.checkpoint import ADAPTER
from tests.support.tiny_model import MODELS, random_weights, save_checkpoint

# As many sequences as it takes to get a gradient for every parameter.
SEQUENCES = [torch.arange(2, 18), torch.arange(50, 20, -2), torch.arange(0, 53, 3)]


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> tuple[Architecture, Weights]:
    """Sizes and random weights."""
    architecture = MODELS[request.param]
    return architecture, random_weights(architecture, seed=3)


@pytest.fixture(scope="module")
def library(model: tuple[Architecture, Weights], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The library's model in float64, read as veRL reads it."""
    architecture, weights = model
    folder: Path = tmp_path_factory.mktemp("model")
    save_checkpoint(architecture, weights, folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if architecture.experts and architecture.fused_experts:
        # The default, `grouped_mm`, cannot compute in float64.
        loaded.set_experts_implementation("eager")
    rotary = loaded.model.rotary_emb
    with _float32_is_float64():
        rotary.inv_freq, _ = rotary.compute_default_rope_parameters(loaded.config)
    if architecture.lora_rank:
        loaded = PeftModel.from_pretrained(loaded, folder / ADAPTER, is_trainable=True)
    return loaded.double()


@contextmanager
def _float32_is_float64() -> Iterator[None]:
    """The library's norms, rotations and softmaxes ask for float32 whatever the weights are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def test_parameters_have_the_names_and_shapes_of_the_library(
    model: tuple[Architecture, Weights], library: Any
) -> None:
    architecture, weights = model
    theirs = {_plain(name): p.shape for name, p in library.named_parameters()}
    assert theirs == {name: w.shape for name, w in weights.items()}
    trained = [name for name, p in library.named_parameters() if p.requires_grad]
    assert sorted(trained) == sorted(trainable(architecture, weights))


def test_every_parameter_has_its_value(model: tuple[Architecture, Weights], library: Any) -> None:
    """Nothing is left as it was initialised."""
    for name, parameter in library.named_parameters():
        assert torch.equal(parameter.float(), model[1][_plain(name)]), name


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_library(
    temperature: float, model: tuple[Architecture, Weights], library: Any
) -> None:
    architecture, weights = model
    exact = {name: w.double() for name, w in weights.items()}
    for tokens, theirs in zip(SEQUENCES, _logits(library), strict=True):
        ours = next_token_log_probs(exact, tokens, architecture, temperature)
        expected = (theirs / temperature).log_softmax(-1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_gradients_are_those_of_the_library(
    model: tuple[Architecture, Weights], library: Any
) -> None:
    architecture, weights = model
    exact = {name: w.double() for name, w in weights.items()}
    trained = {name: exact[name].requires_grad_() for name in trainable(architecture, exact)}
    tables = [next_token_log_probs(exact, tokens, architecture) for tokens in SEQUENCES]
    gradients = torch.autograd.grad(_likelihood(tables), list(trained.values()))
    library.zero_grad()
    torch.autograd.backward(_likelihood([table.log_softmax(-1) for table in _logits(library)]))
    theirs = {_plain(name): p.grad for name, p in library.named_parameters() if p.requires_grad}
    for name, gradient in zip(trained, gradients, strict=True):
        size = float(gradient.norm())
        assert size > 1e-3, f"{name} is not differentiated"
        assert float((theirs[name] - gradient).norm()) < 1e-12 * size, name


def test_mlps_are_what_stands_below_the_mlp_of_a_layer(
    model: tuple[Architecture, Weights], library: Any
) -> None:
    architecture, _ = model
    for layer in range(architecture.layers):
        inside = f".layers.{layer}.mlp."
        trained = [name for name, p in library.named_parameters() if p.requires_grad]
        # `gate` is a router, `gate_proj` is a matrix of an MLP.
        expected = [name for name in trained if inside in name and "gate.weight" not in name]
        assert mlp_members(architecture, layer) == expected


def _plain(name: str) -> str:
    """PEFT wraps what has an adapter; our base weights keep the checkpoint's names."""
    if ".lora_" in name:
        return name
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _logits(library: Any) -> list[Tensor]:
    with _float32_is_float64():
        return [library(tokens[None]).logits[0] for tokens in SEQUENCES]


def _likelihood(tables: list[Tensor]) -> Tensor:
    chosen = [
        table[:-1].gather(1, tokens[1:, None]).sum()
        for table, tokens in zip(tables, SEQUENCES, strict=True)
    ]
    return torch.stack(chosen).sum()
