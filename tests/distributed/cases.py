"""Every combination of recipe and update rule that the engine is run with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.distributed.layouts import (
    FLAT,
    HYBRID,
    KINDS,
    LAYOUTS,
    LORA_ORIGINAL,
    OFFLOADED,
    ORIGINAL,
    ORIGINAL_PARAMETERS,
    REPLICATED,
    ULYSSES,
)
from tests.distributed.recipe import Recipe
from tests.oracle.objective import Objective
from tests.oracle.rule import PAPER, ROBUST, Rule

# veRL's own actor configuration, and ours with `update_rule=null`.
STOCK, CONFIGURED = "stock", "configured"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An update rule: as the user sets it, and as the oracle knows it.

    Args:
        rule: `update_rule`; `None` for a stock run.
        settings: the `pcr` block.
        oracle: the same in the oracle; `None` where the test compares with something else.
        blocks: how `tests.distributed.expected.blocks_of` cuts the model.
        halves: whether the units are halves and not micro-batches.
    """

    rule: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    oracle: Rule | None = None
    blocks: str = "mlp"
    halves: bool = False


_HALVES = {"estimator": "split_half"}
VARIANTS = {
    STOCK: Variant(),
    CONFIGURED: Variant(),
    "paper": Variant(rule="pcr", settings={"preset": "paper"}, oracle=PAPER),
    "robust": Variant(rule="pcr", settings={"preset": "robust"}, oracle=ROBUST),
    "pcgrad": Variant(rule="pcgrad", oracle=Rule(name="pcgrad")),
    "soft": Variant(rule="soft", settings={"alpha": 0.5}, oracle=Rule(name="soft", alpha=0.5)),
    "sum": Variant(rule="sum", oracle=Rule(name="sum")),
    "sum_halves": Variant(rule="sum", settings={"variance": _HALVES}),
    "pcgrad_halves": Variant(
        rule="pcgrad", settings={"variance": _HALVES}, oracle=Rule(name="pcgrad"), halves=True
    ),
    "paper_halves": Variant(rule="pcr", settings={"variance": _HALVES}, oracle=PAPER, halves=True),
    "robust_halves": Variant(
        rule="pcr",
        settings={"preset": "robust", "variance": _HALVES},
        oracle=ROBUST,
        halves=True,
    ),
    "literal": Variant(rule="pcr", settings={"gate": False}, oracle=Rule(name="pcr", gate=False)),
    "relative": Variant(
        rule="pcr",
        settings={"variance": {"scale": "relative"}},
        oracle=Rule(name="pcr", scale="relative"),
    ),
    # The bias of an average of few steps cancels in alpha unless V is compared with a norm.
    "relative_average": Variant(
        rule="pcr",
        settings={"variance": {"scale": "relative", "ema": 0.9}},
        oracle=Rule(name="pcr", scale="relative", decay=0.9),
    ),
    "strict": Variant(
        rule="pcgrad",
        settings={"min_cosine": 0.1},
        oracle=Rule(name="pcgrad", min_cosine=0.1),
    ),
    "upgrad": Variant(rule="torchjd:UPGrad", oracle=Rule(name="upgrad")),
    "mgda": Variant(rule="torchjd:MGDAWeighting", oracle=Rule(name="mgda")),
    "tensor": Variant(rule="pcr", settings={"block": "tensor"}, oracle=PAPER, blocks="tensor"),
    "global": Variant(rule="pcr", settings={"block": "global"}, oracle=PAPER, blocks="global"),
    "everything": Variant(
        rule="pcr", settings={"scope": "all", "block": "global"}, oracle=PAPER, blocks="everything"
    ),
    "everything_halves": Variant(
        rule="pcr",
        settings={"scope": "all", "block": "global", "variance": _HALVES},
        oracle=PAPER,
        blocks="everything",
        halves=True,
    ),
    "attention": Variant(
        rule="pcr", settings={"scope": "attention"}, oracle=PAPER, blocks="attention"
    ),
    "regex": Variant(
        rule="pcr",
        settings={"scope": [r"layers\.[02]\.mlp\.down"]},
        oracle=PAPER,
        blocks="regex",
    ),
    "observe": Variant(rule="observe", settings={"observe_every": 1}),
    "observe_halves": Variant(rule="observe", settings={"observe_every": 1, "variance": _HALVES}),
    "observe_sparse": Variant(rule="observe", settings={"observe_every": 2, "preset": "robust"}),
}


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
    def pooled(self) -> int:
        """Ranks with different rows whose tokens an expert gets in one micro-batch."""
        return 1


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
ON_POLICY = Recipe(name="on_policy", on_policy=True)

_FLAT_VARIETIES = (
    Recipe(name="flat_eager", strategy="fsdp", defer_sync=False, reshard=False),
    Recipe(
        name="original_eager",
        strategy="fsdp",
        defer_sync=False,
        reshard=False,
        engine=(ORIGINAL_PARAMETERS,),
    ),
    Recipe(name="flat_checkpointed", strategy="fsdp", checkpointing=True),
    Recipe(
        name="flat_packed",
        strategy="fsdp",
        remove_padding=True,
        micro_batches=None,
        token_budget=25,
    ),
)
HALF = (
    Recipe(name="bfloat16", precision="bf16"),
    Recipe(name="bfloat16_flat", strategy="fsdp", precision="bf16"),
    Recipe(
        name="bfloat16_original", strategy="fsdp", precision="bf16", engine=(ORIGINAL_PARAMETERS,)
    ),
    Recipe(name="float16", precision="fp16"),
    Recipe(name="float16_flat", strategy="fsdp", precision="fp16"),
)

# Compared with the oracle step by step; where there are several, the weights stay as they are.
AGAINST_ORACLE = [
    *_cases(PLAIN, *_MAIN, *_HALF, ranks=(1, 2, 3)),
    *_cases(PLAIN, "literal", "relative", "strict", "tensor", "global", "attention", "regex"),
    *_cases(PLAIN, "upgrad", "mgda", ranks=(1, 2)),
    *_cases(Recipe(name="sequence", objective=_PER_SEQUENCE), *_MAIN, *_HALF),
    *_cases(
        Recipe(name="sequence_sum", batches=("warm",), objective=_PER_SEQUENCE_SUM),
        *(STOCK, "paper", "robust", "sum", "paper_halves"),
    ),
    *_cases(
        Recipe(name="dynamic", micro_batches=None, token_budget=25),
        *_MAIN,
        *_HALF,
        ranks=(2, 3),
    ),
    *_cases(Recipe(name="checkpointed", checkpointing=True), *_MAIN, "paper_halves"),
    *_cases(
        Recipe(name="packed", remove_padding=True, objective=_PER_SEQUENCE),
        *(STOCK, "paper", "sum"),
    ),
    *_cases(Recipe(name="eager", defer_sync=False, reshard=False), STOCK, "paper", "sum"),
    *_cases(Recipe(name="masked", batches=("masked",)), STOCK, "paper", "paper_halves"),
    *_cases(
        Recipe(name="masked_sequence", batches=("masked",), objective=_PER_SEQUENCE),
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
    *_cases(Recipe(name="alone", micro_batches=(12,)), STOCK, "paper", ranks=(1,)),
    *_cases(FLAT, *_MAIN, *_HALF, ranks=(1, 2, 3)),
    *_cases(ORIGINAL, STOCK, "paper", "robust", ranks=(1, 2, 3)),
    *_cases(ORIGINAL, "pcgrad", "soft", "sum", *_HALF),
    *(c for recipe in _FLAT_VARIETIES for c in _cases(recipe, STOCK, "paper", "sum")),
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
    *(c for recipe in HALF for c in _cases(recipe, STOCK, "paper", "sum", ranks=(1, 2))),
]

CASES = [
    *_cases(TRAIN, STOCK, CONFIGURED, "observe", ranks=(1, 2, 3)),
    *_cases(TRAIN, "paper", "robust", "sum", "observe_sparse", ranks=(2,)),
    *AGAINST_ORACLE,
    *(
        c
        for recipe, ranks in LAYOUTS
        for c in _cases(recipe, CONFIGURED, fitting("observe", recipe), ranks=(ranks,))
    ),
    *(c for recipe in ULYSSES for c in _cases(recipe, fitting("sum", recipe), ranks=(2, 4))),
    *_cases(ENTROPY, STOCK, "observe", "observe_halves"),
    *_cases(DROPOUT, STOCK, "observe", "paper", "sum"),
    *_cases(Recipe(name="dropout_checkpointed", dropout=0.2, checkpointing=True), STOCK, "sum"),
    *(case for recipe in ACCUMULATION for case in _cases(recipe, "sum")),
    *_cases(ON_POLICY, STOCK, "paper", "robust"),
    *_cases(POISONED, STOCK, "observe_sparse"),
    *_cases(Recipe(name="undivided", micro_batches=(6,)), "paper_halves", fails=True),
]


# What `null` is compared with runs before anything of the integration is imported.
_CONFIGURED = {case.recipe for case in CASES if case.variant == CONFIGURED}
CASES.sort(key=lambda case: case.variant != STOCK or case.recipe not in _CONFIGURED)


def case(name: str) -> Case:
    """Look a case up by its name."""
    return next(case for case in CASES if case.name == name)
