"""All figures, in the order of the report."""

from collections.abc import Iterator, Mapping

from pcr_plugin.plots.figures.blocks import draw_alphas, draw_cosines
from pcr_plugin.plots.figures.curves import Panels
from pcr_plugin.plots.figures.drawing import Drawing, Missing
from pcr_plugin.plots.figures.factors import Factor, Measure
from pcr_plugin.plots.figures.front import draw_front
from pcr_plugin.plots.figures.style import labelled
from pcr_plugin.plots.runs.groups import Group, shown
from pcr_plugin.plots.runs.settings import ACTOR, ALPHA, BETA, RATE, RULE, SCOPE
from pcr_plugin.plots.tables.curves import final, typical
from pcr_plugin.plots.tables.keys import GRADIENT_NORM, KL, seconds_key
from pcr_plugin.plots.tables.study import Study

NORMS = Panels(
    "gradient_norms",
    "3. Gradient norms over the steps",
    "Norms before clipping: of the whole combined gradient, and means over the rule's blocks.",
    {
        "whole gradient": GRADIENT_NORM,
        "combined, mean of blocks": "actor/pcr/norm_final",
        "surrogate, mean of blocks": "actor/pcr/norm_pla",
        "KL, mean of blocks": "actor/pcr/norm_sta",
    },
    logarithmic=True,
)
FINAL_COSINE = Panels(
    "final_cosine",
    "5b. Cosine of the combined gradient and the KL gradient",
    "Below 0 the step increases the KL to first order.",
    {"cosine, mean of blocks": "actor/pcr/cos_final_sta"},
    zero=True,
)
RULE_OVER_STEPS = Panels(
    "rule",
    "The rule over the steps",
    "Means over blocks; α over the blocks in conflict.",
    {
        "projection strength α": "actor/pcr/alpha",
        "effective β": "actor/pcr/beta_eff",
        "share of blocks in conflict": "actor/pcr/conflict_rate",
        "cosine of the two gradients": "actor/pcr/cos",
    },
)
BETAS = Factor(
    "betas",
    "1a. Score and perplexity over β",
    "KL coefficient β",
    lambda group: group.settings.get(BETA),
    (BETA,),
    "a score and two values of β that differ in nothing else",
)
SENSITIVITY = Factor(
    "sensitivity",
    "6. Sensitivity to β: the score below each rule's best",
    "KL coefficient β",
    lambda group: group.settings.get(BETA),
    (BETA,),
    "a score and two values of β that differ in nothing else",
    relative=True,
)
RATES = Factor(
    "learning_rates",
    "4c. Learning rates",
    "learning rate",
    lambda group: group.settings.get(RATE),
    (RATE,),
    "a score and two learning rates that differ in nothing else",
)
_SCOPES = ("mlp", "attention", "all")  # then the user's own
SCOPES = Factor(
    "scopes",
    "4b. Where the rule applies, and what a step takes",
    "pcr.scope",
    lambda group: shown(group.settings[SCOPE]) if SCOPE in group.settings else None,
    (SCOPE,),
    "a score and two values of pcr.scope that differ in nothing else",
    ordered=False,
    order=lambda scope: (_SCOPES.index(scope) if scope in _SCOPES else len(_SCOPES), scope),
)
FIXED = "4a. Automatic against fixed α"
# Which alpha `pcr` takes by itself; no difference to a rule whose alpha is fixed.
_AUTOMATIC = tuple(
    f"{ACTOR}pcr.variance.{name}" for name in ("estimator", "scale", "ema", "probes")
)


def strength(group: Group) -> str | None:
    """Where a rule's alpha comes from, for the axis of figure 4a.

    Several ways to an automatic alpha are places of their own.
    """
    rule = group.settings.get(RULE)
    if rule == "soft" and ALPHA in group.settings:
        return shown(group.settings[ALPHA])
    if rule != "pcr":
        return "1 (pcgrad)" if rule == "pcgrad" else None
    words = [_told(key, group.settings.get(key)) for key in _AUTOMATIC if key in group.varying]
    return f"auto ({', '.join(filter(None, ['pcr', *words]))})"


def _told(key: str, value: object) -> str:
    """A word tells what it is, a number does not."""
    if value is None:  # from the preset
        return ""
    return shown(value) if isinstance(value, str) else f"{key.rpartition('.')[2]} {shown(value)}"


STRENGTHS = Factor(
    "alpha_fixed",
    FIXED,
    "projection strength α",
    strength,
    (RULE, ALPHA, *_AUTOMATIC),
    "a score, and runs of two of the rules pcr, soft and pcgrad that differ in nothing else",
    ordered=False,
)


def draw_all(study: Study) -> Iterator[Drawing | Missing]:
    """Every figure, or what it lacks.

    Args:
        study: the runs.

    Raises:
        ImportError: matplotlib is missing.
    """
    score, both = _measures(study)
    with_time = dict(score)
    seconds = seconds_key(study.logs)
    if score and seconds:
        with_time[labelled("seconds per step", seconds)] = lambda log: typical(log, seconds)
    yield from _progress(study).draw(study)
    yield from BETAS.draw(study, both)
    yield from draw_front(study)
    yield from draw_cosines(study)
    yield from NORMS.draw(study)
    yield from STRENGTHS.draw(study, score)
    yield from SCOPES.draw(study, with_time)
    yield from RATES.draw(study, score)
    yield from draw_alphas(study)
    yield from FINAL_COSINE.draw(study)
    yield from SENSITIVITY.draw(study, score)
    yield from RULE_OVER_STEPS.draw(study)


def _measures(study: Study) -> tuple[dict[str, Measure], Mapping[str, Measure]]:
    """The score alone, and with the perplexity where it was logged."""
    wanted, other = study.score, study.perplexity
    score: dict[str, Measure] = {}
    if wanted:
        score[labelled(study.score_name, wanted)] = lambda log: final(log, wanted)
    both = dict(score)
    if wanted and other:
        both[labelled(study.perplexity_name, other)] = lambda log: final(log, other)
    return score, both


def _progress(study: Study) -> Panels:
    """What the runs are about; a metric that was not found keeps its usual name."""
    return Panels(
        "progress",
        "Progress over the steps",
        "What is learned, and how far the policy moves from the reference.",
        {
            study.score_name if study.score else "score": study.score or "val-core/<...>",
            study.perplexity_name: study.perplexity or "<...perplexity...>",
            "KL to the reference": KL,
            "entropy": "actor/entropy",
        },
    )
