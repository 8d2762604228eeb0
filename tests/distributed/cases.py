"""Every combination of recipe and update rule that the engine is run with."""

from dataclasses import dataclass, replace
from typing import Any

from tests.distributed.layouts import (
    FEW,
    FEW_VARIETIES,
    FLAT,
    FLAT_VARIETIES,
    HALF,
    HYBRID,
    KINDS,
    LAYOUTS,
    LORA,
    LORA_ORIGINAL,
    OFFLOADED,
    ORIGINAL,
    REPLICATED,
    ULYSSES,
)
from tests.distributed.recipe import Recipe
from tests.distributed.recomputed import CHECKPOINTED, DROPPED, RECOMPUTED
from tests.distributed.variants import CONFIGURED, STOCK, VARIANTS
from tests.oracle.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recipe under one rule.

    Args:
        recipe: how is trained.
        variant: key of `VARIANTS`.
        ranks: numbers of ranks on which it runs.
        fails: whether it is meant to end with an error.
    """

    recipe: Recipe
    variant: str
    ranks: tuple[int, ...] = (2,)
    fails: bool = False

    @property
    def name(self) -> str:
        """Unique among the cases."""
        return f"{self.recipe.name}-{self.variant}"

    @property
    def shares(self) -> bool:
        """Whether one forward pass can serve both objectives."""
        # The experts of `moe_list` are modules.
        return self.recipe.strategy == "fsdp2" and self.recipe.model != "moe_list"

    @property
    def settings(self) -> dict[str, Any]:
        """Keys below `pcr`; `auto` is one forward pass for both where `shares` says so."""
        return {"passes": "auto", **VARIANTS[self.variant].settings}

    @property
    def forward_passes(self) -> int:
        """How often every micro-batch runs forward in a step of the rule."""
        variant = VARIANTS[self.variant]
        if variant.rule is None:
            return 1
        twice = not self.shares or self.settings["passes"] == "two_forward"
        return (2 if twice else 1) + (variant.rule == "observe")

    @property
    def pooled(self) -> int:
        """Ranks with different rows whose tokens an expert gets in one micro-batch."""
        return 1

    @property
    def fused(self) -> bool:
        """Whether gate and up are one linear layer, as on Megatron-core."""
        return False


def _cases(
    recipe: Recipe, *variants: str, ranks: tuple[int, ...] = (2,), fails: bool = False
) -> list[Case]:
    return [Case(recipe=recipe, variant=v, ranks=ranks, fails=fails) for v in variants]


def fitting(variant: str, recipe: Recipe) -> str:
    """The variant, or that with halves: ranks that share a sequence have no other units."""
    return variant if recipe.sequence_ranks == 1 else f"{variant}_halves"


_PER_SEQUENCE = Objective(aggregation="seq-mean-token-mean", kl="low_var_kl", entropy=0.01)
_PER_SEQUENCE_SUM = Objective(
    aggregation="seq-mean-token-sum", kl="k2", entropy=0.02, temperature=0.7
)
_MAIN = (STOCK, "paper", "robust", "pcgrad", "soft", "sum")
_HALF = ("paper_halves", "robust_halves")

PLAIN = Recipe(name="plain")
TRAIN = Recipe(name="train", batches=("mixed", "second"), learning_rate=1e-2)
DROPOUT = Recipe(name="dropout", batches=TRAIN.batches, learning_rate=1e-2, dropout=0.2)
ENTROPY = Recipe(name="entropy", batches=TRAIN.batches, learning_rate=1e-2, objective=_PER_SEQUENCE)
POISONED = Recipe(name="poisoned", batches=("mixed", "poisoned", "second"), learning_rate=1e-2)
ACCUMULATION = tuple(
    Recipe(name=f"accumulate{8 // size}x{size}", batches=("sixteen",), micro_batches=(size,))
    for size in (8, 4, 2)
)
_DYNAMIC = Recipe(name="dynamic", micro_batches=None, token_budget=25)
_PACKED = Recipe(name="packed", remove_padding=True, objective=_PER_SEQUENCE)
_MASKED = Recipe(name="masked", batches=("rejected",))
_ALONE = Recipe(name="alone", micro_batches=(12,))
ON_POLICY = Recipe(name="on_policy", on_policy=True)

# Compared with the oracle step by step; where there are several, the weights stay as they are.
AGAINST_ORACLE = [
    *_cases(PLAIN, *_MAIN, *_HALF, "robust_beta", ranks=(1, 2, 3)),
    *_cases(PLAIN, "literal", "relative", "strict", "tensor", "global", "attention", "regex"),
    *_cases(PLAIN, "upgrad", "mgda", ranks=(1, 2)),
    *_cases(PLAIN, "paper_twice", "paper_halves_twice", "sum_twice", ranks=(1, 2, 3)),
    *_cases(PLAIN, "robust_halves_combined", ranks=(1, 2, 3)),
    *_cases(Recipe(name="sequence", objective=_PER_SEQUENCE), *_MAIN, *_HALF, "robust_beta"),
    *_cases(
        Recipe(name="sequence_sum", batches=("warm",), objective=_PER_SEQUENCE_SUM),
        *(STOCK, "paper", "robust", "sum", "paper_halves"),
    ),
    *_cases(
        _DYNAMIC,
        *_MAIN,
        *_HALF,
        ranks=(2, 3),
    ),
    *(c for recipe, variants, ranks in RECOMPUTED for c in _cases(recipe, *variants, ranks=ranks)),
    *_cases(
        _PACKED,
        *(STOCK, "paper", "sum"),
    ),
    *_cases(FEW, STOCK, "paper", "robust_halves_group", ranks=(1, 2, 3)),
    *_cases(FEW, "paper_run", ranks=(1,)),
    *(c for recipe in FEW_VARIETIES for c in _cases(recipe, STOCK)),
    *_cases(Recipe(name="eager", defer_sync=False, reshard=False), STOCK, "paper", "sum"),
    *_cases(_MASKED, STOCK, "paper", "paper_halves"),
    *_cases(
        Recipe(name="masked_sequence", batches=("rejected",), objective=_PER_SEQUENCE),
        *(STOCK, "paper"),
    ),
    *_cases(Recipe(name="narrow", model="narrow", batches=("narrow",)), *_MAIN, *_HALF, ranks=(3,)),
    *_cases(
        Recipe(name="steps", batches=("mixed", "second")),
        *(STOCK, "robust", "robust_halves", "relative_average"),
    ),
    *_cases(
        Recipe(name="single", batches=("mixed", "second"), micro_batches=(2, 12)),
        *(STOCK, "robust"),
        ranks=(1,),
    ),
    *_cases(_ALONE, STOCK, "paper", ranks=(1,)),
    *_cases(FLAT, *_MAIN, *_HALF, "robust_beta", ranks=(1, 2, 3)),
    *_cases(ORIGINAL, STOCK, "paper", "robust", "robust_beta", ranks=(1, 2, 3)),
    *_cases(ORIGINAL, "pcgrad", "soft", "sum", *_HALF),
    *(c for recipe in FLAT_VARIETIES for c in _cases(recipe, STOCK, "paper", "sum")),
    *(
        c
        for recipe in HYBRID
        for c in _cases(recipe, STOCK, "paper", "pcgrad", "sum", "robust_halves", ranks=(4,))
    ),
    *(
        c
        for recipe in ULYSSES
        for c in _cases(
            recipe, STOCK, "pcgrad_halves", "paper_halves", "robust_halves", ranks=(2, 4)
        )
    ),
    *(c for recipe in (*OFFLOADED, REPLICATED) for c in _cases(recipe, STOCK, "paper", "sum")),
    *(
        c
        for r in (*KINDS, LORA_ORIGINAL)
        for c in _cases(r, STOCK, "paper", "robust_halves", "sum")
    ),
    *(
        c
        for r in KINDS
        if r.strategy == "fsdp2" and r.model != "moe_list"
        for c in _cases(r, "robust_halves_combined")
    ),
    *(c for recipe in HALF for c in _cases(recipe, STOCK, "paper", "sum", ranks=(1, 2))),
]

# One micro-batch on every rank.
ONE_EACH = Recipe(name="one_each", micro_batches=(6,))
# The same mini-batch and weights under other directions in every step.
_MANY = ("mixed",) * 24
SEEDS = (
    Recipe(name="seeds", batches=_MANY),
    Recipe(
        name="seeds_packed",
        batches=_MANY,
        strategy="fsdp",
        remove_padding=True,
        micro_batches=None,
        token_budget=25,
        objective=_PER_SEQUENCE,
    ),
    replace(ONE_EACH, name="seeds_alone", batches=_MANY),
)

# Units are rows, however they are cut, packed, padded or shared.
PROBED = [
    *_cases(PLAIN, "paper_sequences", "robust_sequences", ranks=(1, 2, 3)),
    *_cases(PLAIN, "attention_sequences", "paper_sequences_twice"),
    *(
        c
        for recipe in (PLAIN, CHECKPOINTED, _PACKED, LORA, OFFLOADED[-1], *HALF[:1], HALF[3])
        for c in _cases(recipe, "paper_sequences_combined")
    ),
    *(
        c
        for recipe in (HYBRID[0], ULYSSES[0])
        for c in _cases(recipe, "paper_sequences_combined", ranks=(4,))
    ),
    *(c for recipe in (FLAT, ORIGINAL) for c in _cases(recipe, "paper_sequences", ranks=(1, 2, 3))),
    *_cases(_DYNAMIC, "paper_sequences", ranks=(2, 3)),
    *_cases(FEW, "paper_sequences", "paper_sequences_group", ranks=(1, 2, 3)),
    *(
        c
        for recipe in FEW_VARIETIES
        for c in _cases(recipe, "paper_sequences", "paper_sequences_group")
    ),
    *_cases(CHECKPOINTED, "paper_sequences_combined_each"),
    *(
        c
        for recipe in (
            CHECKPOINTED,
            _PACKED,
            _MASKED,
            *OFFLOADED,
            LORA,
            LORA_ORIGINAL,
            HALF[0],
            HALF[-1],
        )
        for c in _cases(recipe, "paper_sequences")
    ),
    *(c for recipe in HYBRID for c in _cases(recipe, "paper_sequences", ranks=(4,))),
    *(c for recipe in ULYSSES for c in _cases(recipe, "paper_sequences", ranks=(2, 4))),
    # One micro-batch on the only rank, which the hooks on weights have no use for.
    *_cases(_ALONE, "paper_sequences", ranks=(1,)),
]

CASES = [
    *_cases(TRAIN, STOCK, CONFIGURED, "observe", ranks=(1, 2, 3)),
    *_cases(TRAIN, "paper", "robust", "sum", "observe_sparse", ranks=(2,)),
    *AGAINST_ORACLE,
    *PROBED,
    *_cases(ONE_EACH, "paper"),
    *(c for recipe in SEEDS for c in _cases(recipe, "paper_many_sequences")),
    *(
        c
        for recipe, ranks in LAYOUTS
        for c in _cases(recipe, CONFIGURED, fitting("observe", recipe), ranks=(ranks,))
    ),
    *(c for recipe in ULYSSES for c in _cases(recipe, fitting("sum", recipe), ranks=(2, 4))),
    *_cases(ENTROPY, STOCK, "observe", "observe_halves"),
    *_cases(DROPOUT, STOCK, "observe", "paper", "sum"),
    *_cases(*DROPPED),
    *(case for recipe in ACCUMULATION for case in _cases(recipe, "sum")),
    *_cases(ON_POLICY, STOCK, "paper", "robust"),
    *_cases(POISONED, STOCK, "observe_sparse"),
    *_cases(Recipe(name="few_poisoned", batches=("few_poisoned",)), "paper"),
    *_cases(Recipe(name="undivided", micro_batches=(6,)), "paper_halves", fails=True),
]


# What `null` is compared with runs before anything of the integration is imported.
_CONFIGURED = {case.recipe for case in CASES if case.variant == CONFIGURED}
CASES.sort(key=lambda case: case.variant != STOCK or case.recipe not in _CONFIGURED)


def case(name: str) -> Case:
    """Look a case up by its name."""
    return next(case for case in CASES if case.name == name)
