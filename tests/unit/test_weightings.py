"""TorchJD's weightings on two gradients, against the definitions of the methods."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pcr_plugin import weightings
from pcr_plugin.rules import decide
from pcr_plugin.weightings import load
from tests.unit.explicit_vectors import SCALES, SEEDS, Pair, combined, gramian, pair

USABLE = ("AlignedMTL", "DualProj", "IMTLG", "MGDA", "Mean", "PCGrad", "Sum", "UPGrad")
# Ratios of the norms of beta s and p: at a usual beta the second gradient is small.
RATIOS = (1e-6, 1e-3, 0.3, 1.0, 5.0)
CONFLICTS = [
    (seed, cosine, ratio) for seed in SEEDS for cosine in (-0.05, -0.6, -0.99) for ratio in RATIOS
]
# The solver's matrix gets 2e-12 of its trace added, which a cosine of -0.99 magnifies tenfold.
SOLVED = 1e-9
# A decomposition of a Gramian whose entries are up to 1e12 apart.
DECOMPOSED = 1e-6


def blocks(seed: int, cosine: float, ratio: float) -> list[Pair]:
    return [pair(seed, 25, cosine, norm_s=ratio)]


def gradient(name: str, block: list[Pair]) -> Tensor:
    """What the weights of a method make of p and s, for a beta of 1."""
    return combined(load(name)(gramian(block)), block)[0]


def without(vector: Tensor, axis: Tensor) -> Tensor:
    """A vector less its part along an axis."""
    return vector - (vector @ axis) / (axis @ axis) * axis


def assert_same(actual: Tensor, expected: Tensor, scale: Tensor) -> None:
    assert float((actual - expected).norm()) <= SOLVED * float(scale.norm())


@pytest.mark.parametrize(("seed", "cosine", "ratio"), CONFLICTS)
@pytest.mark.parametrize("name", ["UPGrad", "PCGrad"])
def test_both_gradients_are_projected_in_a_conflict(
    name: str, seed: int, cosine: float, ratio: float
) -> None:
    """UPGrad projects each on the cone of directions against neither; of two, that is PCGrad."""
    block = blocks(seed, cosine, ratio)
    p, s = block[0]
    assert_same(gradient(name, block), without(p, s) + without(s, p), p + s)


@pytest.mark.parametrize(("seed", "cosine", "ratio"), CONFLICTS)
def test_dual_projection_changes_the_sum_as_little_as_needed(
    seed: int, cosine: float, ratio: float
) -> None:
    """The nearest point to p + s with a product of at least 0 with both: Karush-Kuhn-Tucker."""
    block = blocks(seed, cosine, ratio)
    p, s = block[0]
    g = gradient("DualProj", block)
    correction = g - (p + s)
    multipliers = torch.linalg.lstsq(torch.stack([p, s], dim=1), correction).solution
    for axis, multiplier in zip((p, s), multipliers, strict=True):
        unit = axis / axis.norm()
        assert float(g @ unit) >= -SOLVED * float((p + s).norm())
        assert float(multiplier) >= -SOLVED * float((p + s).norm() / axis.norm())
    assert abs(float(g @ correction)) <= SOLVED * float((p + s) @ (p + s))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cosine", [-0.05, -0.6, -0.99])
@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 0.3, 0.9])
def test_dual_projection_is_our_pcgrad_with_the_floor(
    seed: int, cosine: float, ratio: float
) -> None:
    """As docs/paper.md says, while p + beta s is not against p."""
    block, beta = blocks(seed, cosine, 1.0), ratio
    assert float((block[0].p + beta * block[0].s) @ block[0].p) > 0
    none = torch.ones(1, 2, dtype=torch.float64)
    ours, theirs = (
        decide("pcgrad", gramian(block), none, beta, stability_floor=True, weigh=weigh).weights
        for weigh in (None, load("DualProj"))
    )
    torch.testing.assert_close(theirs, ours, rtol=SOLVED, atol=0)


@pytest.mark.parametrize(("seed", "cosine", "ratio"), CONFLICTS)
def test_mgda_is_the_shortest_convex_combination(seed: int, cosine: float, ratio: float) -> None:
    """For two gradients: the foot of the perpendicular on the line between them."""
    block = blocks(seed, cosine, ratio)
    p, s = block[0]
    share = float(s @ (s - p)) / float((p - s) @ (p - s))
    assert 0 < share < 1, "in a conflict the foot lies between the two"
    assert_same(gradient("MGDA", block), share * p + (1 - share) * s, s)


@pytest.mark.parametrize(("seed", "cosine", "ratio"), CONFLICTS)
def test_impartial_learning_has_equal_parts_along_both(
    seed: int, cosine: float, ratio: float
) -> None:
    block = blocks(seed, cosine, ratio)
    p, s = block[0]
    weights, g = load("IMTLG")(gramian(block))[0], gradient("IMTLG", block)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(g @ p / p.norm()) == pytest.approx(float(g @ s / s.norm()), rel=DECOMPOSED)


@pytest.mark.parametrize(("seed", "cosine", "ratio"), CONFLICTS)
def test_aligned_gradients_are_orthogonal_and_of_the_least_singular_value(
    seed: int, cosine: float, ratio: float
) -> None:
    """Sum of the rows of sigma_min U V^T, the nearest rotation of (p, s) = U S V^T."""
    block = blocks(seed, cosine, ratio)
    left, values, right = torch.linalg.svd(torch.stack(block[0]), full_matrices=False)
    expected = values[-1] * (left @ right).sum(dim=0)
    torch.testing.assert_close(gradient("AlignedMTL", block), expected, rtol=DECOMPOSED, atol=0)


@pytest.mark.parametrize(("name", "share"), [("Sum", 1.0), ("Mean", 0.5)])
def test_sum_and_mean(name: str, share: float) -> None:
    table = gramian([pair(0, 9, -0.5), pair(1, 9, -0.9)])
    assert load(name)(table).tolist() == [[share, share]] * 2


@pytest.mark.parametrize("name", ["UPGrad", "DualProj", "PCGrad", "Sum"])
def test_without_a_conflict_the_sum_of_the_losses_is_trained(name: str) -> None:
    """The preference is ones and not TorchJD's halves: veRL minimises a sum."""
    weights = load(name)(gramian([pair(0, 9, 0.7, norm_s=1e-3)]))
    torch.testing.assert_close(weights, torch.ones(1, 2).double(), rtol=SOLVED, atol=0)


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("scale", SCALES)
def test_the_unit_of_the_gradients_does_not_matter(name: str, scale: float) -> None:
    """TorchJD's projector by default stops projecting below a norm of 0.01."""
    table = gramian([pair(0, 9, -0.7, norm_s=0.1)])
    torch.testing.assert_close(load(name)(scale**2 * table), load(name)(table), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["UPGrad", "DualProj", "PCGrad", "MGDA"])
@pytest.mark.parametrize("rounding", [0.0, 1e-9])
def test_between_opposite_gradients_only_standing_still_is_against_neither(
    name: str, rounding: float
) -> None:
    """A block of one number, p = 1 and s = -2: the Gramian is singular, or the cosine beyond -1."""
    product = -2.0 - rounding
    weights = load(name)(torch.tensor([[[1.0, product], [product, 4.0]]], dtype=torch.float64))[0]
    assert torch.isfinite(weights).all()
    assert float(weights[0] - 2 * weights[1]) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("name", USABLE)
def test_with_and_without_the_ending(name: str) -> None:
    table = gramian([pair(0, 9, -0.7), pair(1, 9, -0.2)])
    assert load(name)(table).tolist() == load(name + "Weighting")(table).tolist()
    assert load(name)(table).shape == (2, 2)


@pytest.mark.parametrize("name", USABLE)
def test_blocks_share_nothing(name: str) -> None:
    """One weighting serves all blocks and steps: neither order nor repetition matters."""
    table = gramian([pair(seed, 9, -0.2 - 0.1 * seed, norm_s=0.1 + seed) for seed in range(6)])
    weigh = load(name)
    together = weigh(table)
    assert weigh(table.flip(0)).tolist() == together.flip(0).tolist()
    assert torch.cat([weigh(one[None]) for one in table]).tolist() == together.tolist()


@pytest.mark.parametrize("name", USABLE)
def test_the_random_stream_is_left_alone(name: str) -> None:
    weigh, table = load(name), gramian([pair(0, 9, -0.7)])
    before = torch.get_rng_state()
    weigh(table)
    assert torch.equal(torch.get_rng_state(), before)


def message(name: str, action: Callable[[str], object] = load) -> str:
    with pytest.raises(ValueError, match="is not possible") as caught:
        action(name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["Foo", "upgrad", "Weighting", "NashMTL", "UPGradWeightingg"])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    said = message(name)
    assert said.startswith(f"update_rule='torchjd:{name}' is not possible: TorchJD has no ")
    assert said.endswith("use one of " + ", ".join(f"torchjd:{known}" for known in USABLE))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((n, "without arguments") for n in ("CAGrad", "Constant", "CRMOGM", "FairGrad", "Krum")),
        *((n, "keeps a state") for n in ("GradVac", "MoDo", "PCD", "SDMGrad", "ExcessMTL")),
        ("Random", "random stream"),
    ],
)
def test_what_a_run_cannot_use_is_refused_with_the_reason(name: str, reason: str) -> None:
    for spelling in (name, name + "Weighting"):
        said = message(spelling)
        assert f"update_rule='torchjd:{spelling}'" in said
        assert f"{name} " in said and reason in said
        assert "torchjd:UPGrad" in said


def test_every_weighting_of_the_library_is_either_usable_or_refused_with_a_reason() -> None:
    """A new release that adds one shows here."""
    from torchjd import aggregation

    names = {n.removesuffix("Weighting") for n in aggregation.__all__ if n.endswith("Weighting")}
    refused = {name for name in names - {"", *USABLE} if "TorchJD has no" not in message(name)}
    assert names == {"", *USABLE, *refused}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torchjd", "torchjd.aggregation"):
        monkeypatch.setitem(sys.modules, module, None)
    said = message("MGDA")
    assert said.startswith("update_rule='torchjd:MGDA' is not possible: TorchJD is missing")
    assert 'pip install "pcr-plugin[torchjd]"' in said


@pytest.mark.parametrize("module", ["quadprog", "qpsolvers"])
@pytest.mark.parametrize("name", ["UPGrad", "DualProj"])
def test_a_missing_solver_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = message(name)
    assert said.startswith(f"update_rule='torchjd:{name}' is not possible: its solver is missing")
    assert module in said
    assert 'pip install "pcr-plugin[torchjd]"' in said
    assert load("MGDA")(gramian([pair(0, 9, -0.5)])).shape == (1, 2)


def test_a_solver_that_fails_gives_no_number(caplog: pytest.LogCaptureFixture) -> None:
    """The other ranks wait for the first one's weights, so it must not raise."""

    def fails(gramian: Tensor) -> Tensor:
        raise ArithmeticError("not positive definite")

    found = weightings._weigh(fails, torch.eye(2, dtype=torch.float64)[None])
    assert found.isnan().all()
    assert "not positive definite" in caplog.text
