"""Peers do the work that is asked of them, on the same losses of the same model."""

import pytest
import torch
from torch import Tensor

from tests.support.launch import run_ranks

Gradient = dict[str, Tensor]
BETA = 0.01  # of benchmarks.update


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gradient]:
    """Name of an update, or of one loss, to its gradient."""
    folder = tmp_path_factory.mktemp("peers")
    run_ranks("tests.benchmarks.peers_worker", 1, folder)
    gradients: dict[str, Gradient] = torch.load(folder / "gradients.pt")
    return gradients


def flat(gradient: Gradient, names: list[str]) -> Tensor:
    return torch.cat([gradient[name].flatten() for name in names]).double()


def projected(p: Tensor, s: Tensor) -> Tensor:
    """PCGrad of two gradients: either without its part along the other, if they conflict."""
    product = torch.clamp(p @ s, max=0.0)
    assert product < 0, "otherwise every rule gives the sum"
    return p - product / (s @ s) * s + s - product / (p @ p) * p


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_plain_torch_has_the_gradient_of_stock(found: dict[str, Gradient]) -> None:
    names = list(found["stock"])
    stock = flat(found["stock"], names)
    assert_near(flat(found["plain torch"], names), stock)
    assert_near(flat(found["p"], names) + BETA * flat(found["s"], names), stock)


def test_plain_torch_computes_in_the_precision_of_stock(found: dict[str, Gradient]) -> None:
    names = list(found["stock"])
    exact = flat(found["stock"], names)
    errors = [flat(found[f"{name}, bf16"], names) - exact for name in ("stock", "plain torch")]
    # bf16 has eight bits; autocast leaves some operators in float32.
    for error in errors:
        assert 1e-3 < error.norm() / exact.norm() < 0.1


@pytest.mark.parametrize(
    ("peer", "times"),
    [
        ("TorchJD, backward", 1.0),
        ("TorchJD, sparing memory", 1.0),
        ("Pytorch-PCGrad style", 0.5),
    ],
)
def test_whole_gradients_are_projected(found: dict[str, Gradient], peer: str, times: float) -> None:
    names = list(found["p"])
    p, s = flat(found["p"], names), BETA * flat(found["s"], names)
    assert_near(flat(found[peer], names), times * projected(p, s))


def test_output_layer_of_two_tasks_gets_their_sum(found: dict[str, Gradient]) -> None:
    shared = [name for name in found["p"] if name != "lm_head.weight"]
    p, s = flat(found["p"], shared), BETA * flat(found["s"], shared)
    assert_near(flat(found["TorchJD, mtl_backward"], shared), projected(p, s))
    own = ["lm_head.weight"]
    assert_near(
        flat(found["TorchJD, mtl_backward"], own),
        flat(found["p"], own) + BETA * flat(found["s"], own),
    )


@pytest.mark.parametrize(
    ("peer", "times"),
    [
        ("TorchJD, MLPs only", 1.0),
        ("Pytorch-PCGrad style, MLPs only", 0.5),
    ],
)
def test_of_mlps_alone_is_the_rule(found: dict[str, Gradient], peer: str, times: float) -> None:
    inside = [name for name in found["p"] if ".mlp." in name]
    p, s = flat(found["p"], inside), BETA * flat(found["s"], inside)
    assert_near(flat(found[peer], inside), times * projected(p, s))
    outside = [name for name in found["p"] if ".mlp." not in name]
    both = flat(found["p"], outside) + BETA * flat(found["s"], outside)
    assert_near(flat(found[peer], outside), times * both)


def test_ours_is_the_same_rule_with_signals_combined(found: dict[str, Gradient]) -> None:
    names = list(found["p"])
    two = flat(found["two_forward, MLPs only"], names)
    assert (two - flat(found["stock"], names)).norm() > 0.01 * two.norm()
    assert_near(flat(found["shared_forward, MLPs only, combined"], names), two)
    for name in ("MLPs only", "MLPs only, combined"):
        assert_near(flat(found[f"shared_forward, {name}, unsharded"], names), two)


def test_ours_of_one_block_gives_the_first_its_weight(found: dict[str, Gradient]) -> None:
    """As `pcgrad` does: the surrogate without its part along the KL, and nothing of the KL."""
    names = list(found["p"])
    p, s = flat(found["p"], names), flat(found["s"], names)
    expected = p - torch.clamp(p @ s, max=0.0) / (s @ s) * s
    assert_near(flat(found["shared_forward, one block, unsharded"], names), expected)
