"""veRL's loss taken apart by veRL's own code.

`ppo_loss` adds surrogate, entropy bonus and beta times KL into one scalar, in place. Called with
another configuration it computes each part alone, with its own normalisation, masks and metrics:

- plasticity: `use_kl_loss=False`; what is left is the surrogate minus the entropy bonus.
- stability: a policy loss of zero, no entropy, and a coefficient of 1.
- nothing: neither; what a backward pass then leaves is of losses that the model adds by itself.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.verl import host
from pcr_plugin.verl.outputs import with_kl

LossFunction = Callable[..., tuple[Tensor, dict[str, Any]]]
# Called with a micro-batch before its backward pass.
OnMicroBatch = Callable[[Any], None]

_NO_POLICY_LOSS = "pcr_plugin.none"


class SplitLoss:
    """The two terms of one `partial(ppo_loss, config=...)`.

    Args:
        loss_function: what the trainer handed to the engine.
        on_micro_batch: called with the data of every micro-batch of either pass.

    Raises:
        ValueError: another loss, whose KL term cannot be told apart.
    """

    def __init__(self, loss_function: Any, on_micro_batch: OnMicroBatch) -> None:
        self.config = _config_of(loss_function)
        self._loss = loss_function.func
        self._on_micro_batch = on_micro_batch

    @property
    def beta(self) -> float:
        """The KL coefficient."""
        return float(self.config.kl_loss_coef)

    def plasticity(self) -> LossFunction:
        """Surrogate minus entropy bonus (Eq. 5), as a loss function for veRL's engine."""
        return self._observed(_changed(self.config, use_kl_loss=False))

    def stability(self) -> LossFunction:
        """KL without beta (Eq. 6), as a loss function for veRL's engine."""
        return self._observed(_changed(self._without_policy_loss(), kl_loss_coef=1.0))

    def both(
        self,
        mix: float,
        keep: Callable[[Tensor], None],
        look: Callable[[Tensor, list[Tensor]], None] | None = None,
    ) -> LossFunction:
        """Both losses of one model output, as a loss function for veRL's engine.

        Args:
            mix: the loss that the engine gets is plasticity plus mix times stability.
            keep: gets the stability loss, without beta.
            look: gets the plasticity loss and what of the model's output it may depend on.

        Returns:
            A loss function with a stock step's metrics.
        """
        surrogate = _changed(self.config, use_kl_loss=False)
        kl = _changed(self._without_policy_loss(), kl_loss_coef=1.0)

        def loss(model_output: Any, data: Any, dp_group: Any = None) -> Any:
            self._on_micro_batch(data)
            plasticity, metrics = self._loss(surrogate, model_output, data, dp_group)
            # With a coefficient of zero the entropy would still be run backward.
            needed = {name: value for name, value in model_output.items() if name != "entropy"}
            stability, of_kl = self._loss(kl, needed, data, dp_group)
            keep(stability)
            if look is not None:
                look(plasticity, [t for t in model_output.values() if _has_graph(t)])
            total = plasticity + mix * stability if mix else plasticity
            return total, with_kl(metrics, of_kl, self.beta)

        return loss

    def nothing(self) -> LossFunction:
        """A zero with a gradient of zeros, as a loss function for veRL's engine."""
        return self._observed(_changed(self._without_policy_loss(), use_kl_loss=False))

    def _without_policy_loss(self) -> Any:
        _register_no_policy_loss()
        policy_loss = _changed(self.config.policy_loss, loss_mode=_NO_POLICY_LOSS)
        return _changed(self.config, policy_loss=policy_loss, entropy_coeff=0)

    def _observed(self, config: Any) -> LossFunction:
        def loss(model_output: Any, data: Any, dp_group: Any = None) -> Any:
            self._on_micro_batch(data)
            return self._loss(
                config=config, model_output=model_output, data=data, dp_group=dp_group
            )

        return loss


def _has_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _config_of(loss_function: Any) -> Any:
    ppo_loss = host.name("verl.workers.utils.losses", "ppo_loss")
    simple = (
        isinstance(loss_function, partial)
        and loss_function.func is ppo_loss
        and not loss_function.args
        and set(loss_function.keywords) == {"config"}
    )
    if not simple:
        raise ValueError(
            f"update_rule cannot take the loss {loss_function!r} apart: it needs "
            "functools.partial(verl.workers.utils.losses.ppo_loss, config=actor_config). "
            "Distillation and custom losses are not supported; set update_rule=null for them."
        )
    return loss_function.keywords["config"]


def _changed(config: Any, **changes: Any) -> Any:
    """A shallow copy with other values; veRL's configurations are frozen."""
    if isinstance(config, dict):  # a policy loss that was not made a dataclass
        return {**config, **changes}
    changed = copy.copy(config)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


def _register_no_policy_loss() -> None:
    register = host.name("verl.trainer.ppo.core_algos", "register_policy_loss")
    register(_NO_POLICY_LOSS)(_no_policy_loss)


def _no_policy_loss(log_prob: Tensor, **ignored: Any) -> tuple[Tensor, dict[str, Any]]:
    # Connected with the model, or nothing would run backward; and zero whatever it computed.
    nowhere = torch.zeros_like(log_prob, dtype=torch.bool)
    return torch.where(nowhere, log_prob, 0.0).sum(), {}
