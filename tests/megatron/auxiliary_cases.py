"""Losses that the model adds by itself: of routers whose choice the oracle knows, and of MTP.

The oracle has no such losses: it says what the rule makes of p and s. Their gradient is the
difference of two stock steps, with them and without.
"""

from dataclasses import replace

from tests.distributed.variants import STOCK
from tests.megatron.cases import (
    EXACT,
    EXPERT_LAYOUTS,
    IN_STAGES,
    MOE,
    MOST,
    OFFLOADED,
    SCALED,
    SHARDED,
    SPREAD_SHARDED,
    MegatronCase,
    cases_of,
)
from tests.megatron.router_cases import MistakenRouterCase
from tests.support.megatron_layout import Layout

# So large that their gradient is about as large as the others'.
_LOSSES = (
    ("moe_router_load_balancing_type", ("aux_loss", "seq_aux_loss")),
    ("moe_aux_loss_coeff", (0.5, 0.2)),
    ("moe_z_loss_coeff", 0.1),
)
_BESIDE_TENSOR = next(each for each in EXPERT_LAYOUTS if each.name == "experts1_tensor2_sequence")


def _adding(layout: Layout) -> Layout:
    return replace(
        layout, name=f"adding_{layout.name}", transformer=(*layout.transformer, *_LOSSES)
    )


ADDING = {_adding(layout): layout for layout in (SPREAD_SHARDED, _BESIDE_TENSOR, IN_STAGES)}
IN_SHARDS, _OVER_TENSOR, MEASURED = ADDING
_OFFLOADED = replace(
    OFFLOADED, name="offloaded_moe", model=MOE.model, batches=(*MOE.batches, *MOE.batches)
)
_SCALED = replace(SCALED, name="scaled_moe", model=MOE.model, batches=MOE.batches)
# A layer that predicts the token after the next, on the last stage.
_PREDICTING = replace(EXACT, name="predicting")
PREDICTING = [
    replace(case, predicts=True)
    for case in (
        *cases_of(SHARDED, _PREDICTING, STOCK, "paper", "robust_halves", "sum", "observe"),
        *cases_of(MOST, _PREDICTING, STOCK, "paper"),
    )
]


def _predicting(*variants: str) -> list[MegatronCase]:
    return [case for case in PREDICTING if case.variant in variants]


AGAINST_ORACLE = [
    *(case for layout in ADDING for case in cases_of(layout, MOE, "paper", "robust_halves")),
    *cases_of(IN_SHARDS, _OFFLOADED, "robust"),
    *_predicting("paper", "robust_halves"),
]
AGAINST_STOCK = [
    *cases_of(IN_SHARDS, MOE, "sum"),
    *cases_of(_OVER_TENSOR, _SCALED, "sum"),
    *_predicting("sum"),
]
OBSERVED = [*cases_of(IN_SHARDS, MOE, "observe"), *_predicting("observe")]
AUXILIARY_CASES = [
    *_predicting(STOCK),
    *(case for layout in ADDING for case in cases_of(layout, MOE, STOCK)),
    *cases_of(IN_SHARDS, _OFFLOADED, STOCK),
    *cases_of(_OVER_TENSOR, _SCALED, STOCK),
    *AGAINST_ORACLE,
    *AGAINST_STOCK,
    *OBSERVED,
]
MISTAKEN_AUXILIARY = [
    MistakenRouterCase(
        recipe=MOE,
        layout=IN_SHARDS,
        variant="paper",
        ranks=(2,),
        mistake="auxiliary_losses_in_p",
        spoils="gradient",
    )
]


def stock_with(case: MegatronCase) -> MegatronCase:
    """The stock case of the same recipe and layout, with the losses."""
    (stock,) = cases_of(case.layout, case.recipe, STOCK)
    return replace(stock, predicts=case.predicts)


def stock_without(case: MegatronCase) -> MegatronCase:
    """The stock case of the same model and mini-batch without them."""
    layout, recipe = (case.layout, EXACT) if case.predicts else (ADDING[case.layout], MOE)
    (stock,) = cases_of(layout, recipe, STOCK)
    return stock
