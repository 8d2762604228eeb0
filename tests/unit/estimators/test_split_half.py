"""Two halves whose gradients add up: the spread, and the product without same-sample bias."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pcr_plugin.estimators import Objective, SplitHalfEstimator, UnitColumns
from pcr_plugin.gradients import Local
from pcr_plugin.statistics import variance_of_total
from tests.unit.explicit_vectors import SEEDS, generator, normal

SIZE = 12
SHARES = [(0.5, 0.5), (0.25, 0.75), (0.9, 0.1)]


class Vectors:
    """A host whose "backward pass" adds given vectors; two parameters in two blocks."""

    block_of: Sequence[int] = (0, 1)
    counted: Sequence[bool] = (True, True)
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.held: Local = [None, None]

    def backward(self, vectors: Sequence[Tensor | None]) -> None:
        self.add(list(vectors), [1.0, 1.0])

    def read(self) -> Local:
        return self.held

    def take(self) -> Local:
        taken, self.held = self.held, [None, None]
        return taken

    def add(self, taken: Local, factors: Sequence[float]) -> None:
        for i, (vector, factor) in enumerate(zip(taken, factors, strict=True)):
            if vector is not None:
                before = self.held[i]
                self.held[i] = factor * vector + (0 if before is None else before)

    def keep_rest(self, factor: float) -> None:
        """Everything is in the scope."""
        assert self.held == [None, None], "another pass starts from nothing"

    def finish_rest(self) -> None:
        """Nothing was set aside."""


def run(
    halves: dict[Objective, list[list[Tensor | None]]],
    shares: tuple[float, float],
    *,
    is_first: bool = True,
) -> tuple[UnitColumns, Local, Local]:
    """Columns, and the totals that the host holds, of given gradients per objective and half."""
    host = Vectors()
    estimator = SplitHalfEstimator(host, 2, lambda: shares, is_first)
    estimator.begin()
    estimator.collect(
        Objective.STABILITY, lambda part: host.backward(halves[Objective.STABILITY][part or 0])
    )
    s = host.take()
    estimator.collect(
        Objective.PLASTICITY, lambda part: host.backward(halves[Objective.PLASTICITY][part or 0])
    )
    p = host.read()
    return estimator.columns(p, s), p, s


def random_halves(seed: int) -> dict[Objective, list[list[Tensor | None]]]:
    values = normal(seed, 2, 2, 2, SIZE)
    return {o: [[values[o, half, i] for i in range(2)] for half in range(2)] for o in Objective}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_host_ends_up_with_the_sum_of_the_halves(seed: int) -> None:
    halves = random_halves(seed)
    _, p, s = run(halves, (0.5, 0.5))
    for total, objective in ((p, Objective.PLASTICITY), (s, Objective.STABILITY)):
        for i in range(2):
            expected = halves[objective][0][i] + halves[objective][1][i]
            torch.testing.assert_close(total[i], expected, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shares", SHARES)
def test_variance_is_the_distance_of_the_two_estimates(
    seed: int, shares: tuple[float, float]
) -> None:
    """For M = 2, V = w_A w_B ||g_A / w_A - g_B / w_B||^2."""
    halves = random_halves(seed)
    columns, p, s = run(halves, shares)
    for total, objective in ((p, Objective.PLASTICITY), (s, Objective.STABILITY)):
        norms = torch.stack([total[i].square().sum() for i in range(2)])
        values = variance_of_total(
            columns.squares[:, objective] * columns.mass, norms, columns.units
        )
        for i in range(2):
            first, second = (halves[objective][half][i] for half in range(2))
            apart = first / shares[0] - second / shares[1]
            expected = shares[0] * shares[1] * apart.square().sum()
            torch.testing.assert_close(values[i], expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shares", SHARES)
def test_cross_product_takes_no_product_within_a_half(
    seed: int, shares: tuple[float, float]
) -> None:
    """The mean of (p_A / w_A).(s_B / w_B) and (p_B / w_B).(s_A / w_A)."""
    halves = random_halves(seed)
    columns, _, _ = run(halves, shares)
    for i in range(2):
        p_a, p_b = (halves[Objective.PLASTICITY][half][i] for half in range(2))
        s_a, s_b = (halves[Objective.STABILITY][half][i] for half in range(2))
        w_a, w_b = shares
        expected = 0.5 * ((p_a / w_a) @ (s_b / w_b) + (p_b / w_b) @ (s_a / w_a))
        torch.testing.assert_close(columns.cross[i], expected)


def test_cross_product_is_unbiased_where_p_s_is_not() -> None:
    """Scores x_i enter both gradients: p.s has the bias sum_i E[a_i b_i] ||x_i||^2 / N^2."""
    repeats, samples, width = 4000, 8, 5
    source = generator(0)
    scores = torch.randn(repeats, samples, width, generator=source, dtype=torch.float64)
    # The same number weighs both, so that E[p].E[s] = 0 while E[p.s] = width / samples.
    pla = scores.view(repeats, 2, samples // 2, width).sum(dim=2) / samples
    values, naive = [], []
    for halves in pla[:600]:
        both: list[list[Tensor | None]] = [[halves[0], None], [halves[1], None]]
        columns, p, s = run(dict.fromkeys(Objective, both), (0.5, 0.5))
        values.append(columns.cross[0])
        naive.append(p[0] @ s[0])
    unbiased, biased = torch.stack(values), torch.stack(naive)
    standard_error = unbiased.std() / len(unbiased) ** 0.5
    assert abs(unbiased.mean()) < 4 * standard_error
    assert abs(biased.mean() - width / samples) < 0.1


def test_a_half_without_weight_leaves_a_single_unit() -> None:
    """All its sequences masked: its gradient is 0, and V is unknown rather than plausible."""
    halves = random_halves(1)
    zeros = [torch.zeros(SIZE, dtype=torch.float64)] * 2
    for objective in Objective:
        halves[objective][1] = list(zeros)
    columns, p, _ = run(halves, (1.0, 0.0))
    assert columns.cross.isnan().all()
    assert columns.units.tolist() == [1, 1]
    assert torch.isfinite(columns.squares).all()
    norms = torch.stack([v.square().sum() for v in p if v is not None])
    assert variance_of_total(columns.squares[:, 0], norms, columns.units).isnan().all()


def test_units_are_counted_by_one_rank_only() -> None:
    """All ranks share the two halves; the columns of all ranks are added."""
    halves = random_halves(2)
    counting, _, _ = run(halves, (0.5, 0.5), is_first=True)
    silent, _, _ = run(halves, (0.5, 0.5), is_first=False)
    assert (counting.units + silent.units).tolist() == [2, 2]
    assert (counting.mass + silent.mass).tolist() == [1, 1]
    torch.testing.assert_close(counting.squares, silent.squares)
    torch.testing.assert_close(counting.cross, silent.cross)


def test_a_parameter_without_a_gradient_counts_as_zero() -> None:
    halves = random_halves(3)
    for objective in Objective:
        for half in range(2):
            halves[objective][half][1] = None
    columns, p, s = run(halves, (0.5, 0.5))
    assert columns.squares[1].tolist() == [0, 0]
    assert columns.cross[1].item() == 0
    assert p[1] is None
    assert s[1] is None
