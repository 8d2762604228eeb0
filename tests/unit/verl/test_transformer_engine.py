"""TransformerEngine cannot run here: what is read off its layers, on stand-ins of their names."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from pcr_plugin.verl.transformer_engine import is_linear, normalised, shape_of

WIDTH = 6


class TEColumnParallelLinear(nn.Linear):
    """As TransformerEngine has them, the sizes are those of a rank."""

    parallel_mode: str | None = "column"
    tp_size = 2
    _tp_group = "ranks"


class TERowParallelLinear(TEColumnParallelLinear):
    parallel_mode = "row"


class TELayerNormColumnParallelLinear(TEColumnParallelLinear):
    normalization, eps, zero_centered_gamma = "RMSNorm", 1e-5, False


def norm_of(kind: str, centred: bool) -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(
        normalization=kind,
        eps=1e-5,
        zero_centered_gamma=centred,
        layer_norm_weight=torch.randn(WIDTH),
        layer_norm_bias=torch.randn(WIDTH),
    )


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["RMSNorm", "LayerNorm"])
def test_the_norm_is_torchs(kind: str, centred: bool) -> None:
    module, values = norm_of(kind, centred), torch.randn(3, 2, WIDTH)
    weight = module.layer_norm_weight + float(centred)
    expected: Tensor = rms_norm(values, (WIDTH,), weight, module.eps)
    if kind == "LayerNorm":
        expected = layer_norm(values, (WIDTH,), weight, module.layer_norm_bias, module.eps)
    torch.testing.assert_close(normalised(module)(values), expected)
    assert normalised(module)(values.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [(TEColumnParallelLinear, 6, 8), (TERowParallelLinear, 12, 4)],
)
def test_sizes_are_those_of_the_whole_layer(kind: Any, inputs: int, outputs: int) -> None:
    shape = shape_of(kind(WIDTH, 4))
    assert (shape.inputs, shape.outputs, shape.group) == (inputs, outputs, "ranks")
    assert shape.of_columns == (kind is TEColumnParallelLinear)
    assert shape.prepare is None


def test_a_fused_layer_has_its_norm() -> None:
    assert shape_of(TELayerNormColumnParallelLinear(WIDTH, 4)).prepare is not None


def test_layers_without_communication_and_others_are_not_read() -> None:
    layer = TEColumnParallelLinear(WIDTH, 4)
    assert is_linear(layer)
    layer.parallel_mode = None
    assert not is_linear(layer)
    assert not is_linear(nn.Linear(WIDTH, 4))
