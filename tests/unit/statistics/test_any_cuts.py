"""Products add up over shards, wherever parameters are cut and whoever holds the parts."""

from itertools import accumulate, pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcr_plugin.statistics import local_gramian

exponents = st.integers(-30, 30)


@st.composite
def models(draw: st.DrawFn) -> tuple[list[list[Tensor]], list[list[int]], list[int]]:
    """Gradients of some parameters, how many elements of each the ranks hold, and its block."""
    ranks = draw(st.integers(1, 4))
    sizes = draw(
        st.lists(
            st.lists(st.integers(0, 7), min_size=ranks, max_size=ranks), min_size=1, max_size=4
        )
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    gradients = [
        [
            torch.randn(sum(size), generator=generator, dtype=torch.float64) * 10.0**exponent
            for size in sizes
        ]
        for exponent in (draw(exponents), draw(exponents))
    ]
    blocks = [draw(st.integers(0, 2)) for _ in sizes]
    return gradients, sizes, blocks


@given(model=models())
@settings(derandomize=True, max_examples=200)
def test_the_sum_over_ranks_is_the_product_of_whole_gradients(
    model: tuple[list[list[Tensor]], list[list[int]], list[int]],
) -> None:
    gradients, sizes, blocks = model
    device = torch.device("cpu")
    total = torch.zeros(3, 2, 2, dtype=torch.float64)
    for rank in range(len(sizes[0])):
        own = [
            [_part(whole, size, rank) for whole, size in zip(each, sizes, strict=True)]
            for each in gradients
        ]
        total += local_gramian(own, blocks, 3, device)
    for block in range(3):
        chosen = [
            torch.cat([torch.zeros(1, dtype=torch.float64), *_of(each, blocks, block)])
            for each in gradients
        ]
        wanted = torch.stack([torch.stack([a @ b for b in chosen]) for a in chosen])
        lengths = wanted.diagonal().sqrt()
        error = (total[block] - wanted).abs()
        assert (error <= 1e-13 * torch.outer(lengths, lengths)).all()


def _of(gradients: list[Tensor], blocks: list[int], block: int) -> list[Tensor]:
    return [whole for whole, own in zip(gradients, blocks, strict=True) if own == block]


def _part(whole: Tensor, sizes: list[int], rank: int) -> Tensor | None:
    """What a rank holds; nothing at all is what a rank without a gradient has."""
    bounds = list(pairwise([0, *accumulate(sizes)]))
    part = whole[slice(*bounds[rank])]
    return part if len(part) else None
