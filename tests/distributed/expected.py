"""What the oracle says about a case."""

import math
from collections.abc import Sequence
from functools import cache, partial

from torch import Tensor

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.probing import directions, probed, probed_fused
from tests.distributed.recipe import Recipe, rows_of
from tests.distributed.records import CaseRecord
from tests.distributed.variants import STOCK, VARIANTS, Variant
from tests.oracle.architecture import LINEARS, Architecture, mlp_members, trainable
from tests.oracle.gradients import Gradient, Sketch, Unit, unit_gradients
from tests.oracle.objective import Objective
from tests.oracle.rule import Blocks, Rule, Step, step
from tests.oracle.variances import NO_POOL, Pool
from tests.support.tiny_model import MODELS, random_weights

Units = tuple[tuple[int, ...], ...]


def blocks_of(architecture: Architecture, kind: str) -> Blocks:
    """The blocks of a variant, named as the metrics name them.

    Args:
        architecture: sizes of the model.
        kind: `mlp`, `attention`, `tensor`, `global`, `everything` (the whole model in one block)
            or `regex` (layers 0 and 2, `down` alone).
    """
    layers = range(architecture.layers)
    mlp = {f"{layer}.mlp": mlp_members(architecture, layer) for layer in layers}
    if kind == "attention":
        return {f"{layer}.self_attn": _attention(layer) for layer in layers}
    if kind == "tensor":
        return {
            name.removeprefix("model.layers."): [name] for names in mlp.values() for name in names
        }
    if kind == "global":
        return {"all": [name for names in mlp.values() for name in names]}
    if kind == "everything":
        return {"all": trainable(architecture, random_weights(architecture, seed=0))}
    if kind == "regex":
        return {f"{layer}.mlp": [mlp_members(architecture, layer)[2]] for layer in (0, 2)}
    assert kind == "mlp", kind
    return mlp


class Oracle:
    """Expected steps, with the gradients of a mini-batch computed once.

    Args:
        inputs: models and mini-batches.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._gradients = cache(self._compute)

    def steps(self, case: Case, records: Sequence[CaseRecord]) -> list[Step]:
        """The steps of a case under its own rule.

        Args:
            case: the case.
            records: of all ranks, for the composition of dynamic micro-batches.
        """
        variant = VARIANTS[case.variant]
        assert variant.oracle is not None, "the case is not compared with the oracle"
        return self._steps(case, records, variant.oracle, variant)

    def stock(self, case: Case, records: Sequence[CaseRecord]) -> list[Step]:
        """p + beta s of the same recipe."""
        return self._steps(case, records, Rule(name="sum"), VARIANTS[STOCK])

    def units(self, case: Case, records: Sequence[CaseRecord]) -> list[Unit]:
        """Gradients of every unit of a case's first step."""
        recipe = case.recipe
        units = micro_batches(recipe, records, 0)
        return self._gradients(recipe.model, recipe.batches[0], recipe.objective, units)

    def over_rows(self, case: Case) -> Step:
        """A case's first step with every row as a unit, from dense gradients."""
        recipe, variant = case.recipe, VARIANTS[case.variant]
        assert variant.oracle is not None
        rows = tuple((row,) for row in range(len(self._inputs.batches[recipe.batches[0]])))
        units = self._gradients(recipe.model, recipe.batches[0], recipe.objective, rows)
        blocks = blocks_of(MODELS[recipe.model], variant.blocks)
        return step(units, blocks, variant.oracle, recipe.beta)

    def sketch(self, case: Case, probes: int, step: int) -> Sketch:
        """What the probes of a step read of a gradient."""
        read = probed_fused if case.fused else probed
        return partial(read, directions=partial(directions, probes=probes, step=step))

    def _steps(
        self,
        case: Case,
        records: Sequence[CaseRecord],
        rule: Rule,
        variant: Variant,
    ) -> list[Step]:
        recipe, history = case.recipe, list[Step]()
        blocks = blocks_of(MODELS[recipe.model], variant.blocks)
        for index, batch in enumerate(recipe.batches):
            units = micro_batches(recipe, records, index)
            pool = pool_of(case, len(records), len(units))
            sketch = None
            if variant.probes:
                pool, sketch = NO_POOL, self.sketch(case, variant.probes, index + 1)
                units = tuple((row,) for row in range(len(self._inputs.batches[batch])))
            elif variant.halves:
                pool = NO_POOL
                ranks = len(records) // recipe.sequence_ranks
                units = two_halves(recipe, ranks, len(self._inputs.batches[batch]), index)
            gradients = self._gradients(recipe.model, batch, recipe.objective, units)
            history.append(step(gradients, blocks, rule, recipe.beta, history, pool, sketch))
        return history

    def _compute(self, model: str, batch: str, objective: Objective, units: Units) -> list[Unit]:
        weights, trajectories = self._inputs.weights[model], self._inputs.batches[batch]
        return unit_gradients(weights, MODELS[model], trajectories, units, objective)


def micro_batches(recipe: Recipe, records: Sequence[CaseRecord], index: int) -> Units:
    """The units of one step: every rank's micro-batches, in the order of one pass."""
    units = []
    # The ranks that share sequences have the same rows.
    for record in records[:: recipe.sequence_ranks]:
        seen = record.steps[index].micro_batches
        units += [tuple(rows) for rows in one_pass(seen)]
    return tuple(units)


def pool_of(case: Case, replicas: int, units: int) -> Pool:
    """The experts, where they get the k-th micro-batches of several replicas together.

    Args:
        case: the case.
        replicas: number of ranks with different rows.
        units: number of micro-batches of all of them, replica by replica.
    """
    if case.pooled == 1:
        return NO_POOL
    names = trainable(MODELS[case.recipe.model], random_weights(MODELS[case.recipe.model], seed=0))
    each = units // replicas
    return Pool(
        names=frozenset(name for name in names if ".experts." in name),
        groups=[
            [replica * each + place for replica in range(first, first + case.pooled)]
            for first in range(0, replicas, case.pooled)
            for place in range(each)
        ],
    )


def two_halves(recipe: Recipe, ranks: int, rows: int, index: int) -> Units:
    """The halves of `split_half`: on every rank micro-batches (or rows, if they are dynamic)
    alternate between them.
    """
    size = recipe.micro_batch(index) or 1
    halves: tuple[list[int], list[int]] = ([], [])
    for rank in range(ranks):
        for position, row in enumerate(rows_of(rank, ranks, rows)):
            halves[position // size % 2].append(row)
    return tuple(tuple(half) for half in halves)


def relative_errors(actual: Gradient, expected: Step, blocks: Blocks) -> dict[str, float]:
    """||actual - expected|| / ||expected|| of every block and of the rest of the model."""
    inside = {name for names in blocks.values() for name in names}
    groups = {**blocks, "rest": [name for name in expected.gradient if name not in inside]}
    return {group: _distance(actual, expected.gradient, names) for group, names in groups.items()}


def _distance(actual: Gradient, expected: Gradient, names: Sequence[str]) -> float:
    def squares(tensors: list[Tensor]) -> float:
        return sum(float(t.square().sum()) for t in tensors)

    difference = squares([actual[name].double() - expected[name] for name in names])
    return math.sqrt(difference / squares([expected[name] for name in names]))


def _attention(layer: int) -> list[str]:
    prefix = f"model.layers.{layer}.self_attn."
    names = [f"{prefix}{kind}_proj.weight" for kind in LINEARS["self_attn"]]
    return names + [f"{prefix}{kind}_proj.bias" for kind in ("q", "k", "v")]


def one_pass(seen: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """The micro-batches of one of a step's passes, which all go over the same ones.

    Args:
        seen: of all passes: one in a stock step, two under a rule, three if the model adds losses.
    """
    found = next(n for n in (3, 2, 1) if list(seen) == list(seen[: len(seen) // n]) * n)
    return seen[: len(seen) // found]
