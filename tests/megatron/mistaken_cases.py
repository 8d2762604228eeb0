"""Cases with a mistake put in on purpose, and the same without it; all on two ranks in float64."""

from dataclasses import dataclass

from tests.distributed.recipe import Recipe
from tests.megatron.cases import (
    CASES,
    EXACT,
    KINDS,
    LAYOUTS,
    MOE,
    SPREAD,
    SPREAD_SHARDED,
    MegatronCase,
)

TIED = next(recipe for recipe in KINDS if recipe.model == "even_tied")


@dataclass(frozen=True, kw_only=True)
class MistakenCase(MegatronCase):
    """One step with a mistake.

    Args:
        mistake: key of `tests.megatron.mistakes.MISTAKES`.
        spoils: the quantities, as `test_mistakes` names them, that are wrong then.
        rightly: the same case without the mistake.
    """

    mistake: str
    spoils: tuple[str, ...]
    rightly: MegatronCase

    @property
    def name(self) -> str:
        """Unique among the cases."""
        return f"mistake-{self.mistake}-{self.rightly.name}"


def _right(layout: str, variant: str, recipe: Recipe = EXACT) -> MegatronCase:
    known = (*LAYOUTS, SPREAD, SPREAD_SHARDED)
    where = next(each for each in known if each.name == layout)
    return MegatronCase(recipe=recipe, layout=where, variant=variant, ranks=(2,))


def _mistaken(mistake: str, right: MegatronCase, *spoils: str, fails: bool = False) -> MistakenCase:
    return MistakenCase(
        recipe=right.recipe,
        layout=right.layout,
        variant=right.variant,
        ranks=right.ranks,
        fails=fails,
        mistake=mistake,
        spoils=spoils,
        rightly=right,
    )


_EVERYTHING = _right("tensor2", "everything")
_IN_HALVES = _right("tensor2", "everything_halves")
_SEQUENCE = _right("tensor2_sequence", "everything_halves")
_TIED_STAGES = _right("pipeline2", "everything_halves", TIED)
_SHARDS = _right("data2_sharded", "paper")
_REPLICAS = _right("data2", "paper")
_STAGES = _right("pipeline2", "paper")
_EXPERTS = _right("experts2", "paper", MOE)
_EXPERT_SHARDS = _right("experts2_sharded", "paper", MOE)

VARIANCES = ("var_pla", "var_sta")
MISTAKEN = [
    _mistaken("dots_over_whole_buffers", _SHARDS, "cos", *VARIANCES),
    _mistaken("copies_counted", _EVERYTHING, "cos", *VARIANCES),
    _mistaken("copies_counted", _IN_HALVES, "cos", *VARIANCES),
    _mistaken("copies_counted", _SEQUENCE, "cos", *VARIANCES),
    _mistaken("replicas_counted", _REPLICAS, *VARIANCES),
    _mistaken("last_embedding_counted", _TIED_STAGES, "cos", *VARIANCES),
    _mistaken("nothing_zeroed", _SHARDS, "cos", "gradient"),
    _mistaken("nothing_zeroed", _SEQUENCE, "cos", "gradient"),
    _mistaken("hooks_not_scaled", _REPLICAS, *VARIANCES),
    _mistaken("hooks_not_scaled", _SHARDS, *VARIANCES),
    _mistaken("order_ignored", _STAGES, *VARIANCES),
    _mistaken("order_ignored_aloud", _STAGES, fails=True),
    _mistaken("units_of_experts_apart", _EXPERTS, *VARIANCES),
    _mistaken("units_of_experts_apart", _EXPERT_SHARDS, *VARIANCES),
]

# The right ones that the other tests do not run.
RIGHT = [
    case for case in dict.fromkeys(mistaken.rightly for mistaken in MISTAKEN) if case not in CASES
]
