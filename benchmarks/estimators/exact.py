"""The variance over sequences, from the gradient of every sequence on its own."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.estimators.passes import Passes
from benchmarks.estimators.training import Kept, engine_batch
from pcr_plugin.blocks import partition
from pcr_plugin.estimators import Objective
from pcr_plugin.gradients import Gradients
from pcr_plugin.statistics import variance_of_total
from pcr_plugin.verl import host

DRAWS = 2000  # of whole batches


@dataclass(frozen=True)
class Exact:
    """All inner products of the sequences' gradients g_i, which add up to the batch's g.

    Attributes:
        products: (B, 2, N, N) g_i.g_j of p and of s, in float64.
        weights: (N,) shares of the tokens.
        cosines: (B,) of p and s.
        rest: largest ||g - sum_i g_i|| / ||g|| over blocks and objectives.
    """

    products: Tensor
    weights: Tensor
    cosines: Tensor
    rest: float

    @cached_property
    def variances(self) -> Tensor:
        """(B, 2) V with the sequences as units."""
        return self.with_units(torch.eye(len(self.weights), dtype=torch.float64))

    def with_units(self, members: Tensor) -> Tensor:
        """V with other units, which sequences make up.

        Args:
            members: (M, N) 1 where a sequence is in a unit, else 0; every sequence is in one.

        Returns:
            (B, 2).
        """
        squares = torch.einsum("mi,boij,mj->bom", members, self.products, members)
        weighted = (squares / (members @ self.weights)).sum(dim=-1)
        units = torch.tensor(float(len(members)))
        return variance_of_total(weighted, self.products.sum(dim=(2, 3)), units)

    @cached_property
    def redrawn(self) -> Tensor:
        """(B, 2) trace of the covariance of g, without a formula for it.

        The batch's sequences are drawn again with replacement, and every drawn batch has the
        gradient that veRL's token-mean gives it: the sum of the g_i over its share of the tokens.
        """
        count = len(self.weights)
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(count, (DRAWS, count), generator=generator)
        times = torch.zeros(DRAWS, count, dtype=torch.float64)
        times.scatter_add_(1, rows, torch.ones_like(times))
        factors = times / (times @ self.weights)[:, None]
        off = factors - factors.mean(dim=0)
        total = torch.einsum("ki,boij,kj->bo", off, self.products, off) / (DRAWS - 1)
        return total * count / (count - 1)

    def residual(self) -> Tensor:
        """(B, 2) N / (N - 1) sum_i ||g_i - w_i g||^2, the same as V where all w_i are equal."""
        own = self.products.diagonal(dim1=2, dim2=3)
        across, whole = self.products.sum(dim=3), self.products.sum(dim=(2, 3))
        terms = own - 2 * self.weights * across + self.weights**2 * whole[..., None]
        return terms.sum(dim=-1) * len(self.weights) / (len(self.weights) - 1)

    def spread(self) -> Tensor:
        """(N, B, 2) terms whose sum is V: w_i ||g_i / w_i - g||^2 / (N - 1)."""
        own = self.products.diagonal(dim1=2, dim2=3)
        across, whole = self.products.sum(dim=3), self.products.sum(dim=(2, 3))
        terms = own / self.weights - 2 * across + self.weights * whole[..., None]
        return terms.movedim(2, 0) / (len(self.weights) - 1)


def measure_exact(passes: Passes, kept: Kept, micro_batches: int) -> Exact:
    """Run the engine on one sequence at a time, normalised by the whole batch.

    Args:
        passes: with the batch's policy.
        kept: the batch.
        micro_batches: of the whole batch, whose gradient the sequences' are compared with.
    """
    layout = passes.engine.layout()
    blocks = partition(layout.names, "mlp", "module")
    gradients = layout.access(blocks)
    batch, count = kept.batch, len(kept.batch.trajectories)
    total = float(batch.tokens.sum())
    products = torch.zeros(len(blocks), 2, count, count, dtype=torch.float64)
    rest = 0.0
    wholes: list[list[Tensor]] = []

    def normalise(data: Any) -> None:
        host.name("verl.utils.tensordict_utils", "assign_non_tensor")(data, batch_num_tokens=total)

    with passes.engine.train_mode():
        for objective in Objective:
            rows: list[list[Tensor]] = []
            for row in range(count):
                passes.run(objective, engine_batch(batch, [row], 1), normalise)
                rows.append(_by_block(gradients, len(blocks)))
            passes.run(objective, engine_batch(batch, range(count), micro_batches), lambda _: None)
            wholes.append(_by_block(gradients, len(blocks)))
            for block, whole in enumerate(wholes[-1]):
                each = torch.stack([of_row[block] for of_row in rows]).double()
                difference = torch.linalg.vector_norm(each.sum(dim=0) - whole)
                rest = max(rest, float(difference / torch.linalg.vector_norm(whole)))
                products[block, objective] = each @ each.T
    cosines = [torch.cosine_similarity(*pair, dim=0) for pair in zip(*wholes, strict=True)]
    return Exact(products, batch.tokens / total, torch.stack(cosines), rest)


def _by_block(gradients: Gradients, blocks: int) -> list[Tensor]:
    """Every block's gradient in one row."""
    parts: list[list[Tensor]] = [[] for _ in range(blocks)]
    for block, shard in zip(gradients.block_of, gradients.read(), strict=True):
        assert shard is not None
        parts[block].append(shard.flatten().clone())
    return [torch.cat(of_block) for of_block in parts]
