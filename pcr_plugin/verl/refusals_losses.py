"""Losses that PCR cannot be right for; each error names the remedy."""

import logging
from typing import Any, NamedTuple

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject
from pcr_plugin.verl import host
from pcr_plugin.verl.units import counts_tokens

logger = logging.getLogger(__name__)

# Straight-through k2: the value of the estimator, the gradient of the KL.
GOOD_KL = ("k1+", "abs+", "k2", "mse", "k2+", "mse+", "k3+", "low_var_kl+")
BIASED_KL = ("low_var_kl", "k3")
_ACTOR = "actor_rollout_ref.actor"


def of_sequences() -> tuple[str, ...]:
    """Policy losses that are means over sequences whatever `loss_agg_mode` says."""
    # veRL 0.9.1 lets gspo be a mean over tokens.
    return ("sapo", "geo_mean", "gspo") if host.verl_version() == "0.9.0" else ("sapo", "geo_mean")


def check_losses(actor: Any, rule: UpdateRule, recipe: dict[str, Any]) -> None:
    """Refuse losses without a KL gradient of their own, and those that our passes would change.

    Args:
        actor: veRL's actor configuration.
        rule: the resolved rule.
        recipe: see `pcr_plugin.verl.refusals.check_actor`.

    Raises:
        ValueError: names key, value and remedy.
    """
    _check_kl(actor, recipe)
    if recipe.get("distillation"):
        reject("distillation.enabled", True, "its loss has no separate KL term; switch it off")
    _check_cut(actor, rule)
    _check_weights(actor, rule)


def _check_kl(actor: Any, recipe: dict[str, Any]) -> None:
    if not actor.use_kl_loss:
        reject(
            f"{_ACTOR}.use_kl_loss",
            actor.use_kl_loss,
            "the stability gradient is the gradient of the KL loss; set it to True",
        )
    if recipe.get("use_kl_in_reward"):
        reject(
            "algorithm.use_kl_in_reward",
            True,
            "the KL would count in both gradients; set it to False and keep use_kl_loss",
        )
    beta = actor.kl_loss_coef
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta < float("inf"):
        reject(f"{_ACTOR}.kl_loss_coef", beta, "a number of at least 0")
    kind = actor.kl_loss_type
    if kind in BIASED_KL:
        logger.warning(
            "%s.kl_loss_type=%s: its gradient is not the gradient of the KL; k3+ has the same "
            "value and the right gradient.",
            _ACTOR,
            kind,
        )
    elif kind not in GOOD_KL:
        reject(
            f"{_ACTOR}.kl_loss_type",
            kind,
            f"one of {', '.join((*GOOD_KL, *BIASED_KL))} (k3+ if in doubt); the gradient of "
            "kl, k1 and abs is not that of a KL",
        )


def _check_cut(actor: Any, rule: UpdateRule) -> None:
    """Refuse losses whose scale depends on how rows are cut, where we cut them in another way."""
    halves_of_rows = rule.settings.variance.estimator == "split_half" and actor.use_dynamic_bsz
    halved = f"pcr.variance.estimator=split_half with {_ACTOR}.use_dynamic_bsz=True"
    grouped = rule.settings.zero_advantage == "group"
    by_longest = actor.loss_agg_mode == "seq-mean-token-sum-norm"
    if (halves_of_rows or grouped) and by_longest and actor.loss_scale_factor is None:
        reject(
            f"{_ACTOR}.loss_scale_factor",
            None,
            f"{_ACTOR}.loss_agg_mode=seq-mean-token-sum-norm then divides by the longest response "
            "of a micro-batch, and "
            f"{halved if halves_of_rows else 'pcr.zero_advantage=group'} puts other rows "
            "together; set it to the response length",
        )
    # Micro-batches of a fixed size are all of that size, however rows are sorted.
    if halves_of_rows and _loss_mode(actor) == "geo_mean":
        reject(
            f"{_ACTOR}.policy_loss.loss_mode",
            "geo_mean",
            "it is a mean over each micro-batch, so the gradient grows with their number, and "
            f"{halved} makes another number; set {_ACTOR}.use_dynamic_bsz to False",
        )


class _Weights(NamedTuple):
    """Why units do not weigh the same in the surrogate as in the KL, and the key that mends it."""

    key: str
    value: Any
    why: str


def _check_weights(actor: Any, rule: UpdateRule) -> None:
    """Refuse a variance of units whose weights are those of one of the two losses alone."""
    found = _other_weights(actor)
    if found is None:
        return
    if rule.needs_variance or rule.observes:
        reject(*found)
    logger.warning(
        "%s=%r: %s. update_rule=%s does not need the variances, but the logged pcr/var_* and "
        "pcr/snr_* are not those of the surrogate.",
        *found,
        rule.name,
    )


def _other_weights(actor: Any) -> _Weights | None:
    mode = _loss_mode(actor)
    if mode in of_sequences() and counts_tokens(actor.loss_agg_mode):
        return _Weights(
            f"{_ACTOR}.loss_agg_mode",
            actor.loss_agg_mode,
            f"policy_loss.loss_mode={mode} weighs sequences all the same, and both variances are "
            "over units with one weight each; use seq-mean-token-mean",
        )
    if mode == "geo_mean" and actor.use_dynamic_bsz:
        return _Weights(
            f"{_ACTOR}.use_dynamic_bsz",
            True,
            "policy_loss.loss_mode=geo_mean gives every micro-batch the same weight, and units are "
            "weighed by their sequences; set it to False",
        )
    return None


def _loss_mode(actor: Any) -> str:
    # veRL's own block is a dataclass, one without `_target_` a dictionary; both have `get`.
    return str((actor.policy_loss or {}).get("loss_mode", "vanilla"))
