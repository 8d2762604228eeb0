"""Every logged number, recomputed from whole vectors."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pcr_plugin.metrics import PREFIX, block_metrics, step_metrics
from pcr_plugin.rules import BlockWeights, decide
from tests.unit.explicit_vectors import SEEDS, Pair, combined, gramian, pair

BETA = 0.05
COSINES = (-0.8, 0.5, -0.2, 0.1)
# SPEC section 7; `seconds` is added where time is taken, cos_unbiased needs split_half.
SPECIFIED = {
    "active",
    "conflict_rate",
    "cos",
    "cos_unbiased",
    "cos_final_sta",
    "alpha",
    "beta_eff",
    "norm_pla",
    "norm_sta",
    "norm_final",
    "var_pla",
    "var_sta",
    "snr_pla",
    "snr_sta",
    "removed",
    "degenerate_blocks",
}


def blocks(seed: int) -> list[Pair]:
    return [pair(seed + i, 30, c, 1.0 + i, 0.5 + i) for i, c in enumerate(COSINES)]


def variances(seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.rand(len(COSINES), 2, generator=source, dtype=torch.float64) + 0.1


def decided(pairs: list[Pair], table: Tensor) -> BlockWeights:
    return decide("pcr", gramian(pairs), table, BETA)


def logged(seed: int, *, cross: Tensor | None = None) -> dict[str, float]:
    pairs, table = blocks(seed), variances(seed)
    unknown = torch.full((len(pairs),), torch.nan, dtype=torch.float64)
    return step_metrics(
        gramian(pairs), table, unknown if cross is None else cross, decided(pairs, table)
    )


def mean(values: list[Tensor]) -> float:
    return torch.stack(values).mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_angles_and_norms(seed: int) -> None:
    pairs, values = blocks(seed), logged(seed)
    finals = combined(decided(pairs, variances(seed)).weights, pairs)
    expected = {
        "cos": mean([cosine_similarity(p, s, dim=0) for p, s in pairs]),
        "cos_final_sta": mean(
            [cosine_similarity(g, s, dim=0) for g, (_, s) in zip(finals, pairs, strict=True)]
        ),
        "norm_pla": mean([p.norm() for p, _ in pairs]),
        "norm_sta": mean([s.norm() for _, s in pairs]),
        "norm_final": mean([g.norm() for g in finals]),
        "removed": mean(
            [
                1 - g.square().sum() / p.square().sum()
                for g, (p, _) in zip(finals, pairs, strict=True)
            ]
        ),
        "conflict_rate": 0.5,
    }
    for name, value in expected.items():
        assert values[PREFIX + name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_rule_decided(seed: int) -> None:
    """alpha over blocks in conflict alone, beta_eff over all."""
    table, values = variances(seed), logged(seed)
    in_conflict = [i for i, cosine in enumerate(COSINES) if cosine < 0]
    alphas = [table[i, 0] / table[i].sum() for i in in_conflict]
    assert values["pcr/alpha"] == pytest.approx(mean(alphas))
    betas = []
    for i, (p, s) in enumerate(blocks(seed)):
        effective = -table[i, 0] / table[i].sum() * (p @ s) / (s @ s)
        betas.append(effective if i in in_conflict else torch.tensor(BETA, dtype=torch.float64))
    assert values["pcr/beta_eff"] == pytest.approx(mean(betas))
    assert values["pcr/active"] == 1.0
    assert values["pcr/degenerate_blocks"] == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_variances_and_signal_to_noise(seed: int) -> None:
    table, values = variances(seed), logged(seed)
    for column, name in enumerate(("pla", "sta")):
        squares = [vectors[column].square().sum() for vectors in blocks(seed)]
        assert values[f"pcr/var_{name}"] == pytest.approx(table[:, column].mean().item())
        ratios = [q / v for q, v in zip(squares, table[:, column], strict=True)]
        assert values[f"pcr/snr_{name}"] == pytest.approx(mean(ratios))


def test_unbiased_cosine_only_where_it_was_measured() -> None:
    assert "pcr/cos_unbiased" not in logged(0)
    cross = torch.tensor([-0.3, 0.1, 0.2, 0.0], dtype=torch.float64)
    expected = mean([c / (p.norm() * s.norm()) for c, (p, s) in zip(cross, blocks(0), strict=True)])
    assert logged(0, cross=cross)["pcr/cos_unbiased"] == pytest.approx(expected)


def test_the_names_are_those_of_the_specification() -> None:
    cross = torch.zeros(len(COSINES), dtype=torch.float64)
    assert set(logged(0, cross=cross)) == {PREFIX + name for name in SPECIFIED}


def test_no_key_is_reduced_by_min_or_max() -> None:
    """veRL's `reduce_metrics` asks `"max" in key`, then `"min" in key`, for plain lists."""
    keys = set(logged(0, cross=torch.zeros(len(COSINES), dtype=torch.float64)))
    pairs, table = blocks(0), variances(0)
    labels = ["0.mlp", "1.mlp", "2.self_attn", "all"]
    keys |= set(block_metrics(labels, gramian(pairs), decided(pairs, table)))
    keys.add(PREFIX + "seconds")
    for key in keys:
        assert "max" not in key
        assert "min" not in key


def test_a_mean_over_no_block_is_left_out() -> None:
    pairs = [pair(0, 10, 0.5), pair(1, 10, 0.2)]
    table = torch.ones(2, 2, dtype=torch.float64)
    unknown = torch.full((2,), torch.nan, dtype=torch.float64)
    values = step_metrics(gramian(pairs), table, unknown, decided(pairs, table))
    assert "pcr/alpha" not in values
    assert values["pcr/conflict_rate"] == 0.0
    assert all(math.isfinite(value) for value in values.values())


def test_blocks_without_a_number_do_not_spoil_the_means() -> None:
    """One block without s (no cosine), one with NaN: the others are averaged."""
    pairs = [pair(0, 10, -0.5), Pair(torch.ones(10).double(), torch.zeros(10).double())]
    table = torch.cat([gramian(pairs), torch.full((1, 2, 2), torch.nan, dtype=torch.float64)])
    ones = torch.ones(3, 2, dtype=torch.float64)
    values = step_metrics(
        table, ones, torch.full((3,), torch.nan), decide("pcr", table, ones, BETA)
    )
    assert all(math.isfinite(value) for value in values.values())
    assert values["pcr/cos"] == pytest.approx(-0.5)
    assert values["pcr/degenerate_blocks"] == 1.0
    assert values["pcr/conflict_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_every_block(seed: int) -> None:
    pairs, table = blocks(seed), variances(seed)
    decision = decided(pairs, table)
    labels = [f"{i}.mlp" for i in range(len(pairs))]
    values = block_metrics(labels, gramian(pairs), decision)
    for i, (label, cosine) in enumerate(zip(labels, COSINES, strict=True)):
        assert values[f"pcr/block/{label}/cos"] == pytest.approx(cosine, abs=1e-12)
        assert values[f"pcr/block/{label}/beta_eff"] == decision.weights[i, 1].item()
        assert (f"pcr/block/{label}/alpha" in values) is (cosine < 0)
    assert len(values) == 4 + 4 + 2


def test_a_final_gradient_of_zero_has_no_direction() -> None:
    """alpha = 1 and p = -s: everything is removed."""
    s = torch.ones(4, dtype=torch.float64)
    pairs = [Pair(-s, s)]
    certain = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    values = step_metrics(gramian(pairs), certain, torch.zeros(1), decided(pairs, certain))
    assert values["pcr/removed"] == 1.0
    assert values["pcr/norm_final"] == 0.0
    assert "pcr/cos_final_sta" not in values
