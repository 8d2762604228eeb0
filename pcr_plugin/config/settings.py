"""The `pcr` block of the actor's configuration, as the user writes it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pcr_plugin.config.checks import (
    in_unit_interval,
    is_flag,
    one_of,
    positive_integer,
    reject,
)
from pcr_plugin.config.presets import PRESETS

ESTIMATORS = ("micro_batch", "split_half", "sequence")
SCALES = ("absolute", "relative", "beta")
NAMED_SCOPES = ("mlp", "attention", "all")
BLOCKS = ("module", "tensor", "global")
# Random directions on either side of a linear layer, chosen by measurement (docs/estimators.md).
DEFAULT_PROBES = 16
PASSES = ("auto", "two_forward", "shared_forward")
ZERO_ADVANTAGE = ("skip", "group", "run")


@dataclass(frozen=True, kw_only=True)
class VarianceSettings:
    """How the uncertainty of the two gradients is measured (Eq. 10).

    Args:
        estimator: the independent units whose spread is measured.
        scale: `absolute` V as in the paper; `relative` V over the debiased squared norm;
            `beta` V of beta times the stability gradient. `None`: from the preset.
        ema: decay of the moving average of V, 0 for none. `None`: from the preset.
        probes: random directions of the `sequence` estimator on either side of a linear layer;
            every pair of them is one rank-one probe. `None`: `DEFAULT_PROBES`.

    Raises:
        ValueError: a value out of its range.
    """

    estimator: str = "micro_batch"
    scale: str | None = None
    ema: float | None = None
    probes: int | None = None

    def __post_init__(self) -> None:
        one_of("pcr.variance.estimator", self.estimator, ESTIMATORS)
        if self.scale is not None:
            one_of("pcr.variance.scale", self.scale, SCALES)
        if self.ema is not None:
            in_unit_interval("pcr.variance.ema", self.ema, below_one=True)
        if self.probes is not None:
            positive_integer("pcr.variance.probes", self.probes)


@dataclass(frozen=True, kw_only=True)
class PCRSettings:
    """Every key below `pcr`.

    Args:
        preset: fills the keys that are `None`: `paper` is literal, `robust` is what our own
            measurements support.
        scope: where the rule applies: `mlp`, `attention`, `all`, or regular expressions that
            are searched in parameter names. Elsewhere the gradient is p + beta s (Eq. 16).
        block: what one inner product spans: a layer's `module`, one `tensor`, or the whole
            scope (`global`).
        alpha: the fixed projection strength of the rule `soft`, and of no other.
        variance: how uncertainty is measured.
        stability_floor: in a conflict keep at least beta s. `None`: from the preset.
        gate: project only in a conflict; `False` is Eq. 15 taken literally.
        min_cosine: a conflict needs a cosine below `-min_cosine`.
        passes: how the two gradients are computed: each from forward passes of its own, or both
            from one; `auto` is the fastest that is exact.
        combine_signals: with one forward pass, compute gradients outside the scope once, from
            p + beta s, where the estimator does not need p itself. Where |p| is far below beta |s|
            what is left of p is rounding.
        zero_advantage: with one forward pass, micro-batches whose surrogate has no gradient on any
            rank are not run backward for it (`skip`), sequences without advantage share
            micro-batches, so that there are more of them (`group`), or all are run (`run`).
        share_recomputation: with one forward pass and activation checkpointing, recompute every
            decoder layer once for both backward passes, where its layers are a chain.
        log_blocks: log cosine, alpha and effective beta of every block.
        observe_every: optimizer steps between two measurements of the rule `observe`.

    Raises:
        ValueError: a value out of its range.
    """

    preset: str = "paper"
    scope: str | tuple[str, ...] = "mlp"
    block: str = "module"
    alpha: float | None = None
    variance: VarianceSettings = field(default_factory=VarianceSettings)
    stability_floor: bool | None = None
    gate: bool = True
    min_cosine: float = 0.0
    passes: str = "auto"
    combine_signals: bool = False
    zero_advantage: str = "skip"
    share_recomputation: bool = True
    log_blocks: bool = False
    observe_every: int = 10

    def __post_init__(self) -> None:
        one_of("pcr.preset", self.preset, tuple(PRESETS))
        _check_scope(self.scope)
        one_of("pcr.block", self.block, BLOCKS)
        one_of("pcr.passes", self.passes, PASSES)
        if self.alpha is not None:
            in_unit_interval("pcr.alpha", self.alpha)
        if self.stability_floor is not None:
            is_flag("pcr.stability_floor", self.stability_floor)
        is_flag("pcr.gate", self.gate)
        in_unit_interval("pcr.min_cosine", self.min_cosine)
        is_flag("pcr.combine_signals", self.combine_signals)
        one_of("pcr.zero_advantage", self.zero_advantage, ZERO_ADVANTAGE)
        is_flag("pcr.share_recomputation", self.share_recomputation)
        is_flag("pcr.log_blocks", self.log_blocks)
        positive_integer("pcr.observe_every", self.observe_every)


def _check_scope(scope: Any) -> None:
    if isinstance(scope, str) and scope in NAMED_SCOPES:
        return
    if not isinstance(scope, tuple) or not scope or not all(isinstance(s, str) for s in scope):
        allowed = ", ".join(NAMED_SCOPES)
        reject("pcr.scope", scope, f"one of {allowed}, or a list of regular expressions")
    for pattern in scope:
        try:
            re.compile(pattern)
        # The last two: a number of repetitions or a nesting that the parser does not take.
        except (re.error, OverflowError, RecursionError) as error:
            reject("pcr.scope", pattern, f"a regular expression ({error})")


def settings_from_mapping(values: Mapping[str, Any]) -> PCRSettings:
    """Build the settings from what a YAML reader delivers.

    Args:
        values: nested mapping with the field names of `PCRSettings`.

    Returns:
        The checked settings.

    Raises:
        ValueError: an unknown key, a value out of its range, or no mapping.
    """
    given = _known("pcr", values, PCRSettings)
    variance = given.pop("variance", None)
    if variance is None:
        variance = VarianceSettings()
    elif not isinstance(variance, VarianceSettings):
        variance = VarianceSettings(**_known("pcr.variance", variance, VarianceSettings))
    scope = given.get("scope")
    if isinstance(scope, Sequence) and not isinstance(scope, str):
        given["scope"] = tuple(scope)
    return PCRSettings(**given, variance=variance)


def _known(prefix: str, values: Any, kind: type) -> dict[str, Any]:
    names = [f.name for f in fields(kind)]
    allowed = "the keys are " + ", ".join(names)
    if not isinstance(values, Mapping):
        reject(prefix, values, f"it is a block of keys; {allowed}")
    for name, value in values.items():
        if name not in names:
            reject(f"{prefix}.{name}", value, allowed)
    return dict(values)
