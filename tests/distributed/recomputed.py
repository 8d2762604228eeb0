"""Activations that are recomputed under FSDP2, once for both signals unless a case says twice."""

from dataclasses import replace

from tests.distributed.layouts import HYBRID, KINDS, OFFLOADED, REPLICATED, ULYSSES
from tests.distributed.recipe import Recipe
from tests.distributed.variants import STOCK

CHECKPOINTED = Recipe(name="checkpointed", checkpointing=True)


def _recomputed(recipe: Recipe) -> Recipe:
    return replace(recipe, name=f"{recipe.name}_recomputed", checkpointing=True)


_TIED, _LORA = (_recomputed(recipe) for recipe in KINDS if recipe.name in ("tied", "lora"))
_DYNAMIC = Recipe(name="dynamic", micro_batches=None, token_budget=25)
_PACKED = Recipe(name="packed", remove_padding=True, reshard=False)
_NARROW = Recipe(name="narrow", model="narrow", batches=("narrow",))
# Two micro-batches have no surrogate backward pass on one rank.
_FEW = Recipe(name="few", batches=("few_advantages",))
_SHORT = (STOCK, "paper")
_COMBINED = (*_SHORT, "robust_halves_combined")

# Recipe, variants, numbers of ranks; compared with the oracle.
RECOMPUTED: list[tuple[Recipe, tuple[str, ...], tuple[int, ...]]] = [
    (CHECKPOINTED, _COMBINED, (1, 2, 3)),
    (CHECKPOINTED, ("robust", "pcgrad", "soft", "sum", "paper_halves", "paper_twice"), (2,)),
    (CHECKPOINTED, ("paper_recomputed_twice", "attention", "regex"), (2,)),
    *((_recomputed(recipe), _SHORT, (2,)) for recipe in (*OFFLOADED[::3], REPLICATED)),
    (_TIED, _COMBINED, (2,)),
    (_LORA, _COMBINED, (2,)),
    (_recomputed(HYBRID[0]), _COMBINED, (4,)),
    (_recomputed(ULYSSES[0]), (STOCK, "paper_halves", "robust_halves_combined"), (2,)),
    *(
        (Recipe(name=f"{name}_recomputed", precision=kind, checkpointing=True), _SHORT, (2,))
        for name, kind in (("bfloat16", "bf16"), ("float16", "fp16"))
    ),
    *((_recomputed(recipe), _SHORT, (2,)) for recipe in (_DYNAMIC, _PACKED)),
    (_recomputed(_NARROW), (*_SHORT, "paper_halves"), (3,)),
    (_recomputed(_FEW), _SHORT, (1,)),
]
# Each recomputation drops what the forward pass has dropped; compared with stock.
DROPPED = (
    Recipe(name="dropout_checkpointed", dropout=0.2, checkpointing=True),
    *(STOCK, "sum", "sum_combined", "sum_recomputed_twice", "sum_twice"),
)
