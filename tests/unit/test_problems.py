"""What an estimator notices on one rank ends the step on all of them."""

import pytest
import torch
from torch import Tensor

from tests.unit.test_update import BETA, SIZES, Host, batch_of, rule
from tests.unit.toy_host import accumulate, kl, surrogate


def test_a_problem_of_another_rank_ends_the_step_here() -> None:
    """The table that is summed says so, and the others' words are asked for then alone."""

    def with_another_rank(table: Tensor) -> Tensor:
        return table + torch.tensor([0.0] * 10 + [1.0])

    def words(mine: list[str]) -> list[str]:
        return ["what the other one noticed", *mine]

    host = Host(rule(), sum_over_ranks=with_another_rank, gather=words)
    with pytest.raises(RuntimeError, match=r"^what the other one noticed$"):
        host.step(batch_of())


def test_a_problem_here_ends_the_step() -> None:
    host, batch = Host(rule()), batch_of()
    host.network.zero_grad()

    def unannounced(part: int | None) -> None:
        accumulate(host.network, batch, SIZES, kl)

    with pytest.raises(RuntimeError, match="more than once in one of 0 micro-batches"):
        host.update.run(BETA, host.two_forward(unannounced, host.runner(batch, SIZES, surrogate)))
