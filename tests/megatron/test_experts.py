"""Experts over expert-parallel ranks: names, blocks of single tensors, units."""

import pytest

from tests.distributed.expected import Oracle
from tests.distributed.inputs import Inputs
from tests.distributed.variants import STOCK
from tests.megatron.cases import (
    CASES,
    EXPERT_LAYOUTS,
    MOE,
    SINGLE_ROWS,
    SPREAD,
    MegatronCase,
)
from tests.megatron.conftest import MegatronRuns
from tests.megatron.test_rules import TOLERANCE, with_metrics
from tests.support.distances import difference, norm
from tests.support.megatron_layout import Layout
from tests.support.routing import tokens_per_expert
from tests.support.tiny_model import MODELS

MODEL = MODELS[MOE.model]


def _case(layout: Layout, variant: str) -> MegatronCase:
    return next(c for c in CASES if (c.layout, c.recipe, c.variant) == (layout, MOE, variant))


def tensors(layer: int) -> dict[str, list[str]]:
    """Labels of Megatron-core's tensors in a layer's MLP to the checkpoint's names of them."""
    places = {f"experts.local_experts.{n}": f"experts.{n}" for n in range(MODEL.experts)}
    places["shared_experts"] = "shared_expert"
    kinds = {"linear_fc1": ("gate_proj", "up_proj"), "linear_fc2": ("down_proj",)}
    return {
        f"{layer}.mlp.{place}.{matrix}.weight": [
            f"model.layers.{layer}.mlp.{name}.{kind}.weight" for kind in members
        ]
        for place, name in places.items()
        for matrix, members in kinds.items()
    }


def test_every_experts_tensor_is_a_block_of_its_own(runs: MegatronRuns, oracle: Oracle) -> None:
    """Experts of the second rank are not taken for those of the first."""
    case = _case(SPREAD, "tensor")
    metrics = with_metrics(runs.records(case), 0).metrics
    units = oracle.units(case, runs.replicas(case))
    blocks = {k: v for layer in range(MODEL.layers) for k, v in tensors(layer).items()}
    labels = {n.split("/")[2] for n in metrics if n.startswith("pcr/block/")}
    assert labels == set(blocks)
    for label, names in blocks.items():
        products = dict.fromkeys(("pp", "ps", "ss"), 0.0)
        for name in names:
            p, s = (
                sum(getattr(unit, kind)[name] for unit in units)
                for kind in ("plasticity", "stability")
            )
            for pair, value in (("pp", p * p), ("ps", p * s), ("ss", s * s)):
                products[pair] += float(value.sum())
        cosine = products["ps"] / (products["pp"] * products["ss"]) ** 0.5
        found = metrics[f"pcr/block/{label}/cos"]
        assert found == pytest.approx(cosine, rel=0, abs=TOLERANCE["fp64"]), label


@pytest.mark.parametrize("layout", EXPERT_LAYOUTS, ids=lambda layout: layout.name)
def test_sum_is_the_stock_gradient(layout: Layout, runs: MegatronRuns) -> None:
    ours, stock = (
        runs.records(_case(layout, variant))[0].steps[0].gradient for variant in ("sum", STOCK)
    )
    assert norm(difference(ours, stock)) < TOLERANCE["fp64"] * norm(stock)


@pytest.mark.parametrize("layout", EXPERT_LAYOUTS, ids=lambda layout: layout.name)
def test_observe_is_the_stock_update(layout: Layout, runs: MegatronRuns) -> None:
    ours, stock = (
        runs.records(_case(layout, variant))[0].steps[0].digest for variant in ("observe", STOCK)
    )
    assert ours == stock


def test_units_of_experts_are_larger_where_ranks_exchange_tokens(runs: MegatronRuns) -> None:
    """Otherwise the comparison with the oracle proves little about them."""
    alone, spread = (
        with_metrics(runs.records(_case(layout, "paper")), 0).metrics
        for layout in (EXPERT_LAYOUTS[0], SPREAD)
    )
    for name in ("pcr/var_pla", "pcr/var_sta"):
        assert abs(spread[name] / alone[name] - 1) > 1e-3


def test_some_micro_batch_leaves_an_expert_idle(inputs: Inputs) -> None:
    """In a pipeline its gradient must be there all the same, or it would be another's turn."""
    assert SINGLE_ROWS.micro_batches == (1,)
    weights, rows = inputs.weights[SINGLE_ROWS.model], inputs.batches[SINGLE_ROWS.batches[0]]
    least = [int(tokens_per_expert(weights, MODEL, [row]).min()) for row in rows]
    assert min(least) == 0
    assert max(least) > 0
