"""Every policy loss of the installed veRL, with settings under which each does what it is for."""

from typing import Any

from verl.trainer.config import RolloutCorrectionConfig
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.workers.config import PolicyLossConfig

# `loss_agg_mode` and `loss_scale_factor`.
AGGREGATIONS: tuple[tuple[str, int | None], ...] = (
    ("token-mean", None),
    ("token-sum", None),
    ("seq-mean-token-sum", None),
    ("seq-mean-token-mean", None),
    ("seq-mean-token-sum-norm", None),
    ("seq-mean-token-sum-norm", 9),
)
# Registered by the plugin for the pass without a policy loss.
_OURS = "pcr_plugin.none"


def loss_modes() -> list[str]:
    """The values of `policy_loss.loss_mode` that this veRL knows."""
    return sorted(set(POLICY_LOSS_REGISTRY) - {_OURS})


def policy_loss(loss_mode: str, **changes: Any) -> PolicyLossConfig:
    """A policy loss that on a handful of tokens already clips, draws and corrects.

    Args:
        loss_mode: one of `loss_modes()`.
        **changes: fields of PolicyLossConfig.
    """
    values: dict[str, Any] = {
        "dro_beta": 0.5,
        "clip_cov_ratio": 0.2,
        "clip_cov_lb": -100.0,
        "clip_cov_ub": 100.0,
        "kl_cov_ratio": 0.5,
        "rollout_correction": RolloutCorrectionConfig(rollout_is="token", loss_type="reinforce"),
    }
    return PolicyLossConfig(loss_mode=loss_mode, **(values | changes))
