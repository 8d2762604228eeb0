"""What Megatron-core does at every pass, kept to once a step.

A pass adds the gradients of the routers' auxiliary losses and of multi-token prediction, counts
tokens for the experts' bias, moves the bias and adds to the losses that are logged. A step has
several passes; afterwards everything must be as after a stock step's only one. The model reads its
coefficients off the live configuration, so nothing of Megatron-core is replaced.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from pcr_plugin.distributed import gather_lists, group_of_all
from pcr_plugin.verl.extras import Extras

# Of the routers: tokens counted for the bias, and the bias.
_STATE = ("local_tokens_per_expert", "expert_bias")
_AUXILIARY = ("aux_loss", "seq_aux_loss", "global_aux_loss")


class MegatronExtras(Extras):
    """The losses of a model's own, and the bias of all routers of this rank.

    Every rank must build it: one stage alone may have a loss, and all run its pass.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.
        config: Megatron-core's TransformerConfig.
        predicts: whether layers that predict later tokens (MTP) are trained.

    Attributes:
        losses: names of the losses that some rank adds to a pass.
    """

    def __init__(self, chunks: Sequence[Any], config: Any, *, predicts: bool) -> None:
        modules = [module for chunk in chunks for module in chunk.modules()]
        self._routers = [m for m in modules if hasattr(m, "get_aux_loss_coeff")]
        everywhere = [config, *(m.config for m in modules if hasattr(m, "config"))]
        self._configs = list({id(each): each for each in everywhere}.values())
        own = ["mtp_loss"] if predicts and config.mtp_loss_scaling_factor else []
        self.losses = gather_lists([*own, *self._losses_of_routers()], group_of_all())
        self.has_losses = bool(self.losses)

    def _losses_of_routers(self) -> list[str]:
        coefficients = [
            (kind, router.get_aux_loss_coeff(kind))
            for router in self._routers
            for kind in _AUXILIARY
        ]
        coefficients += [("z_loss", router.config.moe_z_loss_coeff) for router in self._routers]
        return list(dict.fromkeys(kind for kind, coefficient in coefficients if coefficient))

    @contextmanager
    def stability_pass(self) -> Iterator[None]:
        """Without auxiliary losses; the routers are left as they were."""
        with self._without_losses(), self._bias_moves(False), self._routers_kept():
            yield

    @contextmanager
    def plasticity_pass(self, *, last: bool) -> Iterator[None]:
        """Without auxiliary losses; tokens are counted.

        Args:
            last: whether the bias moves afterwards, with what all these passes have counted.
        """
        with self._without_losses(), self._bias_moves(last):
            yield

    @contextmanager
    def auxiliary_pass(self) -> Iterator[None]:
        """With the auxiliary losses, which are logged; the routers are left as they were."""
        with self._bias_moves(False), self._routers_kept():
            yield

    def unseen(self) -> AbstractContextManager[None]:
        """Passes after which tokens counted and bias are as before; only losses are logged."""
        return self._routers_kept()

    @contextmanager
    def forgotten_on_error(self) -> Iterator[None]:
        """After a step that fails, tokens counted and bias are as before it, for who goes on."""
        restore = self._remember()
        try:
            yield
        except BaseException:
            restore()
            raise

    @contextmanager
    def _routers_kept(self) -> Iterator[None]:
        restore = self._remember()
        try:
            yield
        finally:
            restore()

    def _remember(self) -> Callable[[], None]:
        """What brings the routers back to where they are now."""
        tensors = [tensor for router in self._routers for tensor in _state(router)]
        before = [tensor.clone() for tensor in tensors]

        def restore() -> None:
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)

        return restore

    @contextmanager
    def _without_losses(self) -> Iterator[None]:
        def balance(value: Any) -> Any:
            return [0.0] * len(value) if isinstance(value, list) else 0.0

        with (
            self._changed("moe_aux_loss_coeff", balance),
            self._changed("moe_z_loss_coeff", lambda value: None),
            self._changed("mtp_loss_scaling_factor", lambda value: 0.0),
        ):
            yield

    @contextmanager
    def _bias_moves(self, last: bool) -> Iterator[None]:
        with self._changed("moe_router_enable_expert_bias", lambda enabled: enabled and last):
            yield

    @contextmanager
    def _changed(self, field: str, change: Callable[[Any], Any]) -> Iterator[None]:
        # A part of another kind, as an encoder of pictures, may have a configuration of its own.
        before = [(each, getattr(each, field)) for each in self._configs if hasattr(each, field)]
        try:
            for config, value in before:
                setattr(config, field, change(value))
            yield
        finally:
            for config, value in before:
                setattr(config, field, value)


def _state(router: Any) -> list[Tensor]:
    return [tensor for name in _STATE if (tensor := getattr(router, name, None)) is not None]
