"""A block of noisy units in conflict, and what the rules make of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from pcr_plugin.rules import BlockWeights, decide
from pcr_plugin.statistics import scaled_variances
from tests.unit.explicit_vectors import gramian, normal, variance_of_mean

UNITS, SIZE = 5, 24
BETA = 0.02


class Block(NamedTuple):
    """Units of both gradients: (M, n) each, and (M,) sizes."""

    pla: Tensor
    sta: Tensor
    sizes: Tensor


def conflicting_block(seed: int) -> Block:
    """Noisy units around two directions with a negative product."""
    sizes = torch.randint(1, 9, (UNITS,), generator=torch.Generator().manual_seed(seed)).double()
    shares = (sizes / sizes.sum())[:, None]
    axis = normal(seed, SIZE)
    pla = shares * (-axis + 1.0 * normal(seed + 100, UNITS, SIZE))
    sta = shares * (axis + 0.7 * normal(seed + 200, UNITS, SIZE))
    return Block(pla, sta, sizes)


def decision(block: Block, *, rule: str, scale: str, beta: float = BETA) -> BlockWeights:
    """What a rule decides about a block, whose variances are measured over its units."""
    table = gramian([(block.pla.sum(dim=0), block.sta.sum(dim=0))])
    variances = torch.stack(
        [variance_of_mean(block.pla, block.sizes), variance_of_mean(block.sta, block.sizes)]
    )[None]
    return decide(
        rule, table, scaled_variances(variances, table, beta, scale), beta, fixed_alpha=0.4
    )


def gradient(block: Block, *, rule: str, scale: str, beta: float = BETA) -> Tensor:
    """The combined gradient of a block in conflict."""
    result = decision(block, rule=rule, scale=scale, beta=beta)
    assert result.conflict.item(), "the cases are built to be in conflict"
    w_pla, w_sta = result.weights[0]
    return w_pla * block.pla.sum(dim=0) + w_sta * block.sta.sum(dim=0)
