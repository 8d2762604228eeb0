"""Routers with everything that Megatron-core adds to a pass, right and with mistakes.

Their auxiliary losses count padding, too, so they are compared with the stock engine and not with
the oracle.
"""

from dataclasses import dataclass, replace

from tests.distributed.variants import STOCK
from tests.megatron.cases import (
    EXPERTS,
    IN_STAGES,
    MOE,
    OVER_TENSOR,
    PLAIN,
    SPREAD_SHARDED,
    TENSOR,
    MegatronCase,
    cases_of,
)
from tests.support.megatron_layout import Layout

# The biased routing needs sigmoid scores. After a step the bias must move others' tokens.
_EVERYTHING = (
    ("moe_router_load_balancing_type", ("aux_loss", "seq_aux_loss")),
    ("moe_aux_loss_coeff", (0.05, 0.02)),
    ("moe_z_loss_coeff", 0.03),
    ("moe_router_score_function", "sigmoid"),
    ("moe_router_enable_expert_bias", True),
    ("moe_router_bias_update_rate", 0.05),
)
# Of the whole mini-batch so far.
_GLOBAL = (("moe_router_load_balancing_type", "global_aux_loss"), ("moe_aux_loss_coeff", 0.05))


def _balanced(layout: Layout, name: str, extras: tuple[tuple[str, object], ...]) -> Layout:
    return replace(layout, name=name, transformer=(*layout.transformer, *extras))


# Padding counts for the experts' bias. By default every micro-batch is padded to the longest row of
# its pass, and halves have other longest rows.
_PADDING = ("pad_bshd_to_minibatch_max", False)
TWO_STEPS = replace(MOE, name="routers", batches=("even_moe", "even_moe"), engine=(_PADDING,))
BALANCED = _balanced(SPREAD_SHARDED, "balanced_experts2_sharded", _EVERYTHING)
GLOBAL = _balanced(SPREAD_SHARDED, "balanced_globally", _GLOBAL)
ROUTER_LAYOUTS = (
    BALANCED,
    _balanced(OVER_TENSOR, "balanced_tensor2_sequence", _EVERYTHING),
    _balanced(IN_STAGES, "balanced_pipeline2", _EVERYTHING),
)

# veRL brings routes into the order of packed rows; without packing one row is in the same.
_SINGLE = replace(MOE, name="replayed", micro_batches=(1,))
REPLAYED = [
    replace(case, replayed=True)
    for case in cases_of(EXPERTS, _SINGLE, STOCK, "sum", "sum_halves", "observe")
]

ROUTER_CASES = [
    *(
        case
        for layout in ROUTER_LAYOUTS
        for case in cases_of(layout, TWO_STEPS, STOCK, "sum", "sum_halves")
    ),
    *cases_of(BALANCED, TWO_STEPS, "observe", "observe_halves"),
    *cases_of(GLOBAL, TWO_STEPS, STOCK, "sum", "sum_halves"),
]

# An error before their first step, when norms, which tensor-parallel ranks share, are set aside;
# when routers have counted tokens.
INTERRUPTED = (
    *cases_of(TENSOR, PLAIN, "paper"),
    *cases_of(BALANCED, TWO_STEPS, "sum_halves"),
)


@dataclass(frozen=True, kw_only=True)
class MistakenRouterCase(MegatronCase):
    """Two steps with a mistake.

    Args:
        mistake: key of `tests.megatron.mistakes.MISTAKES`.
        spoils: `gradient` or `bias`.
    """

    mistake: str
    spoils: str

    @property
    def name(self) -> str:
        """Unique among the cases."""
        return f"mistake-{self.mistake}-{super().name}"


def _mistaken(mistake: str, variant: str, spoils: str) -> MistakenRouterCase:
    return MistakenRouterCase(
        recipe=TWO_STEPS,
        layout=BALANCED,
        variant=variant,
        ranks=(2,),
        mistake=mistake,
        spoils=spoils,
    )


MISTAKEN_ROUTERS = [
    _mistaken("auxiliary_losses_twice", "sum", "gradient"),
    _mistaken("bias_moved_in_the_auxiliary_pass", "sum", "bias"),
    _mistaken("bias_moved_in_every_pass", "sum", "bias"),
    _mistaken("bias_moved_in_every_half", "sum_halves", "bias"),
    _mistaken("observed_passes_remembered", "observe", "bias"),
]


def stock_of(case: MegatronCase) -> MegatronCase:
    """The stock case of the same recipe and layout."""
    return next(
        other
        for other in (*ROUTER_CASES, *REPLAYED)
        if (other.recipe, other.layout, other.variant) == (case.recipe, case.layout, STOCK)
    )
