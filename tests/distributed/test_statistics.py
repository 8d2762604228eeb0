"""Alpha, V and the other metrics, against per-micro-batch gradients computed one by one."""

import math
from collections.abc import Sequence

import pytest

from tests.distributed.cases import AGAINST_ORACLE, PROBED, Case
from tests.distributed.conftest import Runs
from tests.distributed.expected import Oracle
from tests.distributed.variants import STOCK, VARIANTS
from tests.oracle.rule import BlockResult

# Norms and products of gradients whose relative error is about 1e-6 (`test_gradients`); observed
# are 9e-7 for alpha and 9e-7 for V. A cosine near 0 is a small difference of large sums, so its
# error is absolute, too.
TOLERANCE = {"fp32": 3e-6, "fp16": 1e-2, "bf16": 5e-2}

CASES = [
    pytest.param(case, ranks, id=f"{case.name}-{ranks}")
    for case in (*AGAINST_ORACLE, *PROBED)
    for ranks in case.ranks
    if case.variant != STOCK
]


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_every_block(case: Case, ranks: int, runs: Runs, oracle: Oracle) -> None:
    records = runs.of(case.name, ranks)
    tolerance = TOLERANCE[case.recipe.precision]
    for step, expected in enumerate(oracle.steps(case, records)):
        metrics = records[0].steps[step].metrics
        for label, block in expected.blocks.items():
            name = f"pcr/block/{label}/"
            assert metrics[name + "cos"] == pytest.approx(block.cosine, rel=0, abs=tolerance)
            scale = (block.plasticity / block.stability) ** 0.5
            assert metrics[name + "beta_eff"] == pytest.approx(
                block.beta_effective, rel=0, abs=tolerance * scale
            )
            projected = block.conflict and not math.isnan(block.alpha)
            assert (name + "alpha" in metrics) == projected
            if projected:
                assert metrics[name + "alpha"] == pytest.approx(block.alpha, rel=0, abs=tolerance)


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_means_over_blocks(case: Case, ranks: int, runs: Runs, oracle: Oracle) -> None:
    records = runs.of(case.name, ranks)
    tolerance = TOLERANCE[case.recipe.precision]
    for step, expected in enumerate(oracle.steps(case, records)):
        metrics = records[0].steps[step].metrics
        means = _means(list(expected.blocks.values()), VARIANTS[case.variant].halves)
        for name, value in means.items():
            # A sum of products of either sign is small beside what it is the sum of; norms and
            # variances are not.
            absolute = 0.0 if name.startswith(("norm", "var", "snr")) else tolerance
            assert metrics[f"pcr/{name}"] == pytest.approx(value, rel=tolerance, abs=absolute), name
        logged = {name for name in metrics if name.startswith("pcr/") and "/block/" not in name}
        extra = {"pcr/active", "pcr/degenerate_blocks", "pcr/seconds"}
        assert logged == {f"pcr/{name}" for name in means} | extra
        assert metrics["pcr/active"] == 1.0


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_degenerate_blocks_are_those_without_variance(
    case: Case, ranks: int, runs: Runs, oracle: Oracle
) -> None:
    records = runs.of(case.name, ranks)
    rule = VARIANTS[case.variant].oracle
    assert rule is not None
    known = False
    for step, expected in enumerate(oracle.steps(case, records)):
        blocks = expected.blocks.values()
        known = (known and rule.decay > 0) or all(block.variances for block in blocks)
        unknown = 0 if known or rule.name != "pcr" else len(blocks)
        assert records[0].steps[step].metrics["pcr/degenerate_blocks"] == unknown


def _means(blocks: Sequence[BlockResult], halves: bool) -> dict[str, float]:
    """The metrics that do not go by block, by their definition in the documentation.

    A mean over nothing is left out; only halves give a product free of same-sample bias.
    """
    columns: dict[str, list[float]] = {
        "conflict_rate": [float(b.conflict) for b in blocks],
        "cos": [b.cosine for b in blocks],
        "cos_final_sta": [b.final_stability / (b.final * b.stability) ** 0.5 for b in blocks],
        "alpha": [b.alpha for b in blocks if b.conflict and not math.isnan(b.alpha)],
        "beta_eff": [b.beta_effective for b in blocks],
        "norm_pla": [b.plasticity**0.5 for b in blocks],
        "norm_sta": [b.stability**0.5 for b in blocks],
        "norm_final": [b.final**0.5 for b in blocks],
        "removed": [1 - b.final / b.plasticity for b in blocks],
        "var_pla": [b.variances[0] for b in blocks if b.variances],
        "var_sta": [b.variances[1] for b in blocks if b.variances],
        "snr_pla": [b.plasticity / b.variances[0] for b in blocks if b.variances],
        "snr_sta": [b.stability / b.variances[1] for b in blocks if b.variances],
        "cos_unbiased": [
            b.unbiased / (b.plasticity * b.stability) ** 0.5
            for b in blocks
            if halves and b.unbiased is not None
        ],
    }
    return {name: sum(c) / len(c) for name, c in columns.items() if c}
