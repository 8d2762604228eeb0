"""Eq. 11-16 on dense float64 gradients, block by block, and the variance behind them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.oracle.gradients import Gradient, Sketch, Unit, flat, sketched
from tests.oracle.variances import NO_POOL, Pool, variances_of

# Block name to the parameters it spans.
Blocks = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to combine p and s.

    Args:
        name: `pcr`, `pcgrad`, `soft` or `sum`; or `upgrad` or `mgda` of p and beta s.
        alpha: of `soft`.
        scale: `absolute`, `relative` or `beta`: the unit in which the two variances are compared.
        decay: of the moving average of the variances.
        floor: never weigh s by less than beta in a conflict.
        gate: project in a conflict only.
        min_cosine: a conflict needs a cosine below `-min_cosine`.
    """

    name: str
    alpha: float | None = None
    scale: str = "absolute"
    decay: float = 0.0
    floor: bool = False
    gate: bool = True
    min_cosine: float = 0.0


PAPER = Rule(name="pcr")
ROBUST = Rule(name="pcr", scale="relative", decay=0.9, floor=True)


@dataclass(frozen=True, kw_only=True)
class BlockResult:
    """What happened to one block.

    Attributes:
        plasticity: squared norm of p.
        stability: squared norm of s.
        product: p.s.
        final: squared norm of the combined gradient.
        final_stability: combined gradient times s.
        variances: V of p and of s in this step, in absolute units; `None` with a single unit.
        conflict: whether it was projected.
        alpha: projection strength; NaN for a rule that has none.
        beta_effective: weight of s.
        plasticity_weight: weight of p.
        unbiased: p.s from products across different units, for two units; else None.
    """

    plasticity: float
    stability: float
    product: float
    final: float
    final_stability: float
    variances: tuple[float, float] | None
    conflict: bool
    alpha: float
    beta_effective: float
    plasticity_weight: float
    unbiased: float | None

    @property
    def cosine(self) -> float:
        """Cosine of p and s."""
        return self.product / math.sqrt(self.plasticity * self.stability)


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        gradient: the combined gradient of every parameter.
        blocks: what happened to each block.
    """

    gradient: Gradient
    blocks: dict[str, BlockResult] = field(default_factory=dict)


def step(
    units: Sequence[Unit],
    blocks: Blocks,
    rule: Rule,
    beta: float,
    history: Sequence[Step] = (),
    pool: Pool = NO_POOL,
    sketch: Sketch | None = None,
) -> Step:
    """Combine the gradients of a mini-batch.

    Args:
        units: contributions that add up to p and s.
        blocks: where the rule applies; elsewhere p + beta s.
        rule: how.
        beta: the KL coefficient.
        history: earlier steps, oldest first, for the moving average.
        pool: parameters with larger units.
        sketch: what the variances are measured on, if not on the gradients.

    Returns:
        The combined gradient and the numbers behind it.
    """
    plasticity, stability = (_total(units, kind) for kind in ("plasticity", "stability"))
    combined = {name: p + beta * stability[name] for name, p in plasticity.items()}
    measured = units if sketch is None else sketched(units, sketch)
    results = {}
    for block, names in blocks.items():
        past = [v for earlier in history if (v := earlier.blocks[block].variances)]
        p, s = flat(plasticity, names), flat(stability, names)
        variances = variances_of(measured, names, pool)
        result = _resolve(units, names, p, s, rule, beta, past, variances)
        results[block] = result
        for name in names:
            p_part = result.plasticity_weight * plasticity[name]
            combined[name] = p_part + result.beta_effective * stability[name]
    return Step(combined, results)


def _resolve(
    units: Sequence[Unit],
    names: Sequence[str],
    p: Tensor,
    s: Tensor,
    rule: Rule,
    beta: float,
    past: Sequence[tuple[float, float]],
    variances: tuple[float, float] | None,
) -> BlockResult:
    counted = [unit for unit in units if unit.size > 0]
    mass = sum(unit.size for unit in counted)
    shares = [unit.size / mass for unit in counted]
    p_units = [flat(unit.plasticity, names) for unit in counted]
    s_units = [flat(unit.stability, names) for unit in counted]
    averaged = _averaged([*past, variances] if variances else past, rule.decay)
    known = averaged is not None or rule.name != "pcr"
    alpha = _alpha(rule, averaged, p, s, beta)
    product = float(p @ s)
    cosine = product / float(p.norm() * s.norm())
    conflict = known and (not rule.gate or cosine < -rule.min_cosine)
    p_weight, weight = 1.0, beta
    if conflict and rule.name in _OF_TWO:
        p_weight, weight = _OF_TWO[rule.name](p, beta * s)
        weight *= beta
    elif conflict and rule.name != "sum":
        weight = -alpha * product / float(s @ s)  # Eq. 15 as a weight of s
        weight = max(weight, beta) if rule.floor else weight
    final = p_weight * p + weight * s
    return BlockResult(
        plasticity=float(p @ p),
        stability=float(s @ s),
        product=product,
        final=float(final @ final),
        final_stability=float(final @ s),
        variances=variances,
        conflict=conflict,
        alpha=alpha,
        beta_effective=weight,
        plasticity_weight=p_weight,
        unbiased=_across(p_units, s_units, shares) if len(counted) == 2 else None,
    )


def _alpha(
    rule: Rule, variances: tuple[float, float] | None, p: Tensor, s: Tensor, beta: float
) -> float:
    """Eq. 13: lambda_sta / (lambda_pla + lambda_sta), lambda = 1 / V."""
    if rule.name in _OF_TWO:
        return math.nan
    if rule.name != "pcr":
        return {"pcgrad": 1.0, "sum": 0.0, "soft": rule.alpha or 0.0}[rule.name]
    if variances is None:
        return 0.0  # nothing is known: the block is not projected
    pla, sta = variances
    if rule.scale == "beta":
        sta = beta**2 * sta
    if rule.scale == "relative":
        pla, sta = _over_signal(pla, float(p @ p)), _over_signal(sta, float(s @ s))
    return (1 / sta) / (1 / pla + 1 / sta)


def _over_signal(variance: float, square: float) -> float:
    """Noise over signal, ||g||^2 - V, of which 1e-12 of the whole is always left."""
    return variance / max(square - variance, 1e-12 * square)


def _upgrad(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Jacobian descent (arXiv 2406.16232): the sum of both gradients, each projected on the cone
    of the directions against neither. In a conflict that takes away its part along the other.
    """
    product = float(first @ second)
    return 1 - product / float(first @ first), 1 - product / float(second @ second)


def _mgda(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Multiple-gradient descent: the shortest convex combination, which in a conflict is the foot
    of the perpendicular from the origin.
    """
    difference = first - second
    share = -float(second @ difference) / float(difference @ difference)
    return share, 1 - share


# Weights of two gradients in conflict.
_OF_TWO = {"upgrad": _upgrad, "mgda": _mgda}


def _averaged(values: Sequence[tuple[float, float]], decay: float) -> tuple[float, float] | None:
    """Exponential average of all steps so far, weights normalised to 1; `None` of no steps."""
    if not values:
        return None
    weights = [decay**age for age in reversed(range(len(values)))]
    pla = sum(w * v[0] for w, v in zip(weights, values, strict=True)) / sum(weights)
    sta = sum(w * v[1] for w, v in zip(weights, values, strict=True)) / sum(weights)
    return pla, sta


def _across(p: Sequence[Tensor], s: Sequence[Tensor], shares: Sequence[float]) -> float:
    """Mean of p_A.s_B and p_B.s_A, each half rescaled to an estimate of the whole."""
    first = float((p[0] / shares[0]) @ (s[1] / shares[1]))
    second = float((p[1] / shares[1]) @ (s[0] / shares[0]))
    return (first + second) / 2


def _total(units: Sequence[Unit], kind: str) -> Gradient:
    gradients: list[Gradient] = [getattr(unit, kind) for unit in units]
    return {name: torch.stack([g[name] for g in gradients]).sum(dim=0) for name in gradients[0]}
