"""Which policy losses, KL estimators and aggregations the engine is run with together."""

from dataclasses import dataclass

from pcr_plugin.verl.refusals_losses import BIASED_KL, GOOD_KL
from tests.support.policy_losses import AGGREGATIONS, loss_modes

KL_TYPES = (*GOOD_KL, *BIASED_KL)
# In every round each loss mode is run once, with another estimator and another aggregation than
# in the others. In the last one batches have weights of a rollout correction.
ROUNDS = {"fsdp": (0, 1), "fsdp2": (2,)}
_WEIGHTED = 2


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One loss.

    Args:
        loss_mode: `policy_loss.loss_mode`.
        kl: `kl_loss_type`.
        aggregation: `loss_agg_mode`.
        horizon: `loss_scale_factor`.
        entropy: `entropy_coeff`.
        importance: whether the batch has weights of a rollout correction.
        bypass: `rollout_correction.loss_type`, which only the mode `bypass_mode` reads.
    """

    loss_mode: str
    kl: str
    aggregation: str
    horizon: int | None
    entropy: float
    importance: bool = False
    bypass: str = "reinforce"

    @property
    def name(self) -> str:
        """Unique among the combinations."""
        parts = [self.loss_mode, self.kl, self.aggregation]
        parts += [str(self.horizon)] * (self.horizon is not None)
        parts += ["entropy"] * (self.entropy > 0) + ["weights"] * self.importance
        parts += [self.bypass] * (self.bypass != "reinforce")
        return "-".join(parts)


def combinations(strategy: str) -> list[Combination]:
    """Every loss mode in every round of a strategy; estimators and aggregations take turns."""
    modes = loss_modes()
    result = []
    for round_ in ROUNDS[strategy]:
        for position, mode in enumerate(modes):
            # One more in every round, so that a mode does not meet the same partners again.
            turn = round_ * (len(modes) + 1) + position
            aggregation, horizon = AGGREGATIONS[turn % len(AGGREGATIONS)]
            result.append(
                Combination(
                    loss_mode=mode,
                    kl=KL_TYPES[turn % len(KL_TYPES)],
                    aggregation=aggregation,
                    horizon=horizon,
                    entropy=0.02 * ((round_ + position // 2) % 2),
                    # Bypass mode computes its weights itself.
                    importance=round_ == _WEIGHTED and mode != "bypass_mode",
                    bypass="ppo_clip" if round_ == 1 and mode == "bypass_mode" else "reinforce",
                )
            )
    return result
