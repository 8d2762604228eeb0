"""The KL term, taken out of OpenRLHF's loss by OpenRLHF's own code.

`training_step` multiplies: `loss = actor_loss + kl_loss * kl_ctl`. A `kl_ctl` that is no number is
asked for the product. It keeps the KL loss, of which the stability gradient is taken, and returns
a constant of the same value. What is then run backward is the rest: surrogate minus entropy bonus.
"""

from torch import Tensor


class KLTerm:
    """Stands for the coefficient of the KL loss in one micro-batch.

    Args:
        beta: the coefficient.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._loss: Tensor | None = None

    def __rmul__(self, kl_loss: object) -> Tensor:
        """What OpenRLHF adds to the surrogate loss: beta times the KL loss, as a constant.

        Args:
            kl_loss: the KL loss with its graph.

        Raises:
            ValueError: there is none; refused before under `python -m pcr_plugin.openrlhf`.
        """
        if not isinstance(kl_loss, Tensor) or not kl_loss.requires_grad:
            raise ValueError(
                "--algo.kl.use_loss=False is not possible with --actor.update_rule: the stability "
                "gradient is the gradient of the KL loss; set --algo.kl.use_loss"
            )
        self._loss = kl_loss
        return kl_loss.detach() * self.beta

    def loss(self) -> Tensor:
        """The KL loss, without beta.

        Raises:
            RuntimeError: OpenRLHF has not asked for the product, as 0.11.2 does.
        """
        if self._loss is None:
            raise RuntimeError(
                "OpenRLHF's training step did not compute `kl_loss * kl_ctl` as 0.11.2 does; this "
                "release of it is not supported"
            )
        return self._loss
