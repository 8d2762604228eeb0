"""Every combination of layout, recipe and update rule that the Megatron engine is run with.

To add one, extend `CASES`: `cases_of(layout, recipe, *names of VARIANTS)`. A launch per number of
ranks runs all of them one after the other.
"""

from dataclasses import dataclass, replace

from tests.distributed.cases import Case
from tests.distributed.recipe import Recipe
from tests.distributed.variants import CONFIGURED, STOCK
from tests.support.megatron_layout import Layout


@dataclass(frozen=True, kw_only=True)
class MegatronCase(Case):
    """One recipe under one rule and one layout.

    Args:
        layout: how the model is cut.
        replayed: whether tokens go to experts that were recorded before.
        predicts: whether another layer learns to predict the token after the next.
    """

    layout: Layout
    replayed: bool = False
    predicts: bool = False

    @property
    def name(self) -> str:
        """Unique among the cases."""
        return f"{self.recipe.name}-{self.layout.name}-{self.variant}"

    @property
    def fused(self) -> bool:
        """Megatron-core computes gate and up in one."""
        return True

    @property
    def pooled(self) -> int:
        """Data-parallel ranks whose tokens an expert gets in one micro-batch."""
        return self.layout.pooled


def cases_of(layout: Layout, recipe: Recipe, *variants: str) -> list[MegatronCase]:
    """One layout and recipe under several names of `VARIANTS`."""
    return [
        MegatronCase(recipe=recipe, layout=layout, variant=v, ranks=(layout.ranks,))
        for v in variants
    ]


# Many small buckets, whose edges cut through parameters and whose shards do, too.
_BUCKETS = ("bucket_size", 3000)
_OVERLAP = ("overlap_grad_reduce", True)

WHOLE = Layout(name="whole")
MOST = Layout(name="tensor2_pipeline2_sequence", tensor=2, pipeline=2, sequence=True)
TENSOR = Layout(name="tensor2", tensor=2)
SHARDED = Layout(name="data2_sharded", data=2, distributed_optimizer=True)
# Attention draws from a random state of Megatron-core's own, one per tensor-parallel rank.
DROPOUT = Layout(
    name="tensor2_dropout",
    tensor=2,
    transformer=(("attention_dropout", 0.2),),
)
LAYOUTS = (
    WHOLE,
    TENSOR,
    Layout(name="tensor2_sequence", tensor=2, sequence=True),
    Layout(name="pipeline2", pipeline=2),
    Layout(name="pipeline2_virtual2", pipeline=2, virtual=2),
    Layout(name="data2", data=2),
    SHARDED,
    Layout(
        name="data2_sharded_overlap", data=2, distributed_optimizer=True, ddp=(_OVERLAP, _BUCKETS)
    ),
    Layout(
        name="tensor2_data2_sharded",
        tensor=2,
        data=2,
        distributed_optimizer=True,
        ddp=(("average_in_collective", True),),
    ),
    MOST,
)
# As the recipes have it: every layer's activations are computed again in the backward pass.
RECOMPUTING = (
    ("recompute_granularity", "full"),
    ("recompute_method", "uniform"),
    ("recompute_num_layers", 1),
)
RECOMPUTED = (
    replace(TENSOR, name="tensor2_recomputed", transformer=RECOMPUTING),
    replace(MOST, name="tensor2_pipeline2_sequence_recomputed", transformer=RECOMPUTING),
)
# Both stages have the tied embedding, and its gradient is reduced twice.
TWICE = Layout(name="pipeline2_data2_sharded", pipeline=2, data=2, distributed_optimizer=True)
HALF_BUFFERS = replace(
    SHARDED, name="data2_sharded_half", ddp=(("grad_reduce_in_fp32", False), *SHARDED.ddp)
)

# One step that moves the weights, so that replicas could drift apart.
PLAIN = Recipe(name="even", model="even", batches=("even",), micro_batches=(4,), learning_rate=1e-2)

# The weights stay where the oracle has them.
STILL = Recipe(name="still", model="even", batches=("even", "even"), micro_batches=(4,))

# The same in float64, where an error of the method cannot hide behind rounding.
EXACT = replace(PLAIN, name="exact", precision="fp64")

# The tied embedding lies on the first stage and on the last, and its gradient is summed over both.
# Norms of heads are on all tensor-parallel ranks, and their gradients are summed over these.
KINDS = tuple(replace(EXACT, name=m, model=m, batches=(m,)) for m in ("even_tied", "even_normed"))

# Parameters and computation; gradients are added up in float32.
HALF = replace(PLAIN, name="half", precision="bf16")

# The same with Megatron-core's scaler of the loss. veRL asks for an optimizer of TransformerEngine
# then, unless `override_optimizer_config` says otherwise.
SCALED = replace(
    PLAIN,
    name="scaled",
    precision="fp16",
    optimizer=(("use_precision_aware_optimizer", False), ("initial_loss_scale", 2.0**10)),
)

# Between steps parameters, gradients and the optimizer's state are freed or moved.
OFFLOADED = replace(
    EXACT,
    name="offloaded",
    batches=STILL.batches,
    learning_rate=0.0,
    engine=(("param_offload", True), ("optimizer_offload", True)),
)

# One module per expert, and the experts spread over the data-parallel ranks.
EXPERTS_APART = (
    ("moe_grouped_gemm", False),
    ("moe_shared_expert_overlap", False),
    ("moe_shared_expert_gate", True),
)
MOE = replace(EXACT, name="even_moe", model="even_moe", batches=("even_moe",))
# Of which some leave an expert without a token.
SINGLE_ROWS = replace(MOE, name="single_rows", micro_batches=(1,))
EXPERTS = Layout(name="experts1", transformer=EXPERTS_APART)
SPREAD = replace(EXPERTS, name="experts2", data=2, experts=2)
SPREAD_SHARDED = replace(SPREAD, name="experts2_sharded", distributed_optimizer=True)
IN_STAGES = replace(EXPERTS, name="experts1_pipeline2", pipeline=2)
OVER_TENSOR = replace(EXPERTS, tensor=2, sequence=True)
EXPERT_LAYOUTS = (
    EXPERTS,
    replace(OVER_TENSOR, name="experts1_tensor2_sequence"),
    IN_STAGES,
    SPREAD,
    SPREAD_SHARDED,
    replace(SPREAD_SHARDED, name="experts2_sharded_overlap", ddp=(_OVERLAP, _BUCKETS)),
    # The ranks that exchange tokens have the same micro-batches.
    replace(OVER_TENSOR, name="experts2_tensor2", experts=2, expert_tensor=1),
)
# Those that exchange tokens are of two tensor-parallel groups; or two out of four ranks.
LARGE_EXPERT_LAYOUTS = (
    replace(
        OVER_TENSOR,
        name="experts4_tensor2_data2_sharded",
        data=2,
        experts=4,
        expert_tensor=1,
        distributed_optimizer=True,
    ),
    replace(SPREAD_SHARDED, name="experts2_data4_sharded", data=4),
)

# Compared with the oracle. The stock case of a recipe and layout comes before the others of it.
AGAINST_ORACLE = [
    *(
        case
        for layout in LAYOUTS
        for case in (
            *cases_of(layout, PLAIN, STOCK, "paper", "sum"),
            *cases_of(layout, EXACT, STOCK, "paper", "robust_halves"),
            *cases_of(layout, STILL, STOCK, "robust_beta"),
        )
    ),
    # What a rule makes of the same products is the same in every layout.
    *(case for layout in (WHOLE, MOST) for case in cases_of(layout, EXACT, "pcgrad")),
    *(
        case
        for layout in (WHOLE, MOST)
        for recipe in KINDS
        for case in cases_of(layout, recipe, STOCK, "paper")
    ),
    *cases_of(TWICE, KINDS[0], STOCK, "paper", "robust_halves"),
    *(
        case
        for layout in RECOMPUTED
        for case in cases_of(layout, EXACT, STOCK, "paper", "robust_halves")
    ),
    *(
        case
        for layout in (SHARDED, TENSOR, HALF_BUFFERS)
        for case in cases_of(layout, HALF, STOCK, "paper")
    ),
    *(case for layout in (SHARDED, TENSOR) for case in cases_of(layout, SCALED, STOCK, "paper")),
    *cases_of(SHARDED, OFFLOADED, STOCK, "robust", "paper_halves"),
    *(
        case
        for layout in EXPERT_LAYOUTS
        for case in cases_of(layout, MOE, STOCK, "paper", "robust_halves")
    ),
    *(case for layout in LARGE_EXPERT_LAYOUTS for case in cases_of(layout, MOE, STOCK, "paper")),
    *cases_of(SPREAD, MOE, "everything"),
    *cases_of(IN_STAGES, SINGLE_ROWS, STOCK, "paper"),
]
# Units are rows, wherever their tokens and the features of the layers are.
PROBED = [
    *(case for layout in LAYOUTS for case in cases_of(layout, EXACT, "paper_sequences")),
    *(case for layout in RECOMPUTED for case in cases_of(layout, EXACT, "paper_sequences")),
    *cases_of(SHARDED, OFFLOADED, "paper_sequences"),
    *cases_of(TENSOR, SCALED, "paper_sequences"),
    *cases_of(TENSOR, HALF, "paper_sequences"),
]
CASES = [
    *AGAINST_ORACLE,
    *PROBED,
    *(
        c
        for layout in (WHOLE, TENSOR, MOST)
        for c in cases_of(layout, EXACT, "attention_sequences")
    ),
    *cases_of(DROPOUT, PLAIN, STOCK, "sum", "observe"),
    *(case for layout in (WHOLE, SHARDED, MOST) for case in cases_of(layout, PLAIN, CONFIGURED)),
    *(case for layout in EXPERT_LAYOUTS for case in cases_of(layout, MOE, "sum", "observe")),
    *cases_of(SPREAD, MOE, "tensor"),
    *(case for layout in LAYOUTS for case in cases_of(layout, PLAIN, "observe")),
]


def stock(case: MegatronCase) -> MegatronCase:
    """The stock case of the same recipe and layout."""
    return next(
        other
        for other in CASES
        if (other.recipe, other.layout, other.variant) == (case.recipe, case.layout, STOCK)
    )
