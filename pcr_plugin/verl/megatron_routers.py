"""What Megatron-core's routers do at every pass, kept to once a step.

A pass adds the gradients of the auxiliary losses, counts tokens for the experts' bias, moves the
bias and adds to the layers' logged losses. A step has several passes; afterwards everything must
be as after a stock step's only one. Routers read their coefficients off the live configuration,
so nothing of Megatron-core is replaced.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

# Of the routers: tokens counted for the bias, and the bias.
_STATE = ("local_tokens_per_expert", "expert_bias")


class RouterExtras:
    """The auxiliary losses and the bias of all routers of this rank.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.
        config: Megatron-core's TransformerConfig.
    """

    def __init__(self, chunks: Sequence[Any], config: Any) -> None:
        modules = [module for chunk in chunks for module in chunk.modules()]
        self._routers = [m for m in modules if hasattr(m, "get_aux_loss_coeff")]
        everywhere = [config, *(module.config for module in (*chunks, *self._routers))]
        self._configs = list({id(each): each for each in everywhere}.values())

    @contextmanager
    def silent(self) -> Iterator[None]:
        """A pass without auxiliary losses, which leaves the routers as they were."""
        with self.undone(), self._scaled(0.0):
            yield

    @contextmanager
    def sharing(self, share: float, last: bool) -> Iterator[None]:
        """One of the passes that together are a stock step's pass.

        Megatron-core takes the mean of the auxiliary losses over a pass's micro-batches.

        Args:
            share: this pass's part of the sequences.
            last: whether the bias moves afterwards, with what all passes have counted.
        """
        with self._scaled(share), self._bias_moves(last):
            yield

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Passes after which tokens counted, bias and logged losses are as before."""
        state = [tensor for router in self._routers for tensor in _state(router)]
        logged = {name: entry["values"] for name, entry in _logged().items()}
        before = [tensor.clone() for tensor in (*state, *logged.values())]
        try:
            yield
        finally:
            for tensor, values in zip((*state, *logged.values()), before, strict=True):
                tensor.copy_(values)
            for name in _logged().keys() - logged.keys():
                _logged()[name]["values"].zero_()

    @contextmanager
    def _scaled(self, factor: float) -> Iterator[None]:
        def balance(value: Any) -> Any:
            return [factor * v for v in value] if isinstance(value, list) else factor * value

        def of_logits(value: float | None) -> float | None:
            return factor * value if value and factor else None

        losses = self._changed("moe_aux_loss_coeff", balance)
        with losses, self._changed("moe_z_loss_coeff", of_logits):
            yield

    @contextmanager
    def _bias_moves(self, last: bool) -> Iterator[None]:
        with self._changed("moe_router_enable_expert_bias", lambda enabled: enabled and last):
            yield

    @contextmanager
    def _changed(self, field: str, change: Any) -> Iterator[None]:
        before = [getattr(config, field) for config in self._configs]
        try:
            for config, value in zip(self._configs, before, strict=True):
                setattr(config, field, change(value))
            yield
        finally:
            for config, value in zip(self._configs, before, strict=True):
                setattr(config, field, value)


def _state(router: Any) -> list[Tensor]:
    return [tensor for name in _STATE if (tensor := getattr(router, name, None)) is not None]


def _logged() -> dict[str, Any]:
    from megatron.core.transformer.moe.moe_utils import get_moe_layer_wise_logging_tracker

    tracker: dict[str, Any] = get_moe_layer_wise_logging_tracker()
    return tracker
