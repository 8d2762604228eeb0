"""TransformerEngine's linear layers, as Megatron-core wraps them.

Built from their sources and not run: TransformerEngine needs a GPU. They are known by name, since
without TransformerEngine Megatron-core has no such classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_NORMED = "TELayerNormColumnParallelLinear"
_CLASSES = ("TEColumnParallelLinear", "TERowParallelLinear", _NORMED)


class Shape(NamedTuple):
    """What has to be known of a parallel linear layer.

    Attributes:
        inputs: features of the whole layer.
        outputs: features of the whole layer.
        of_columns: whether the outputs are cut, and not the inputs.
        group: tensor-parallel ranks.
        prepare: from the module's argument to what its weight multiplies.
    """

    inputs: int
    outputs: int
    of_columns: bool
    group: Any
    prepare: Callable[[Tensor], Tensor] | None = None


def is_linear(module: nn.Module) -> bool:
    """Whether it is one of those layers, with tensor-parallel communication of its own."""
    return type(module).__name__ in _CLASSES and getattr(module, "parallel_mode", None) is not None


def shape_of(module: Any) -> Shape:
    """Read a layer's attributes.

    Args:
        module: one for which `is_linear` is true.
    """
    of_columns = module.parallel_mode == "column"
    ranks = module.tp_size
    return Shape(
        inputs=module.in_features * (1 if of_columns else ranks),
        outputs=module.out_features * (ranks if of_columns else 1),
        of_columns=of_columns,
        group=module._tp_group,
        prepare=normalised(module) if type(module).__name__ == _NORMED else None,
    )


def normalised(module: Any) -> Callable[[Tensor], Tensor]:
    """The norm that a fused layer applies before its weight, computed again.

    Args:
        module: has `normalization`, `eps`, `zero_centered_gamma`, `layer_norm_weight` and, of a
            LayerNorm, `layer_norm_bias`.

    Returns:
        A function from the layer's argument, in whose type the result is.
    """

    def normalise(values: Tensor) -> Tensor:
        hidden = values.float()
        if module.normalization == "LayerNorm":
            hidden = hidden - hidden.mean(dim=-1, keepdim=True)
        hidden = hidden * torch.rsqrt(hidden.square().mean(dim=-1, keepdim=True) + module.eps)
        scale = module.layer_norm_weight.float() + float(module.zero_centered_gamma)
        hidden = hidden * scale
        if module.normalization == "LayerNorm":
            hidden = hidden + module.layer_norm_bias.float()
        normed: Tensor = hidden.to(values.dtype)
        return normed

    return normalise
