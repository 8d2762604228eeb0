"""How other libraries would do the same work, on one process.

A peer is veRL's engine with the model left as it is, unsharded. So the model, its loading, the
micro-batches, the losses, the clipping, AdamW and its schedule are the same code as in all other
rows; only what happens between the two losses of a micro-batch and the gradient that is clipped
is the peer's. Our own engine takes the same model where it is called `unsharded`. All train every
parameter, and project them all unless it is said. Both losses come
from one forward pass. The second is beta times the KL, since their rules take losses and know no
coefficient.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from verl.trainer.config import CheckpointConfig
from verl.utils.device import get_device_name
from verl.utils.fsdp_utils import load_fsdp_optimizer
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from benchmarks.flattened import FlattenedPCGrad
from pcr_plugin.verl.fsdp_engine import FsdpTwoGradientEngine
from pcr_plugin.verl.losses import SplitLoss

# What the page says of each.
DIFFERENCES = {
    "plain torch": "one loss and one backward pass, as stock, without FSDP: what the peers below "
    "are to be compared with",
    "TorchJD, backward": "`backward([p, beta s])` in every micro-batch, which adds to the "
    "Jacobian of all parameters; one loss after the other (`parallel_chunk_size=1`), since its "
    "default, `vmap`, has no rule for the nested tensors of veRL's log-probabilities; "
    "`jac_to_grad` with `PCGrad` once, at the end",
    "TorchJD, sparing memory": "the same with `optimize_gramian_computation=True`, which its "
    "documentation advises if memory is an issue",
    "TorchJD, mtl_backward": "`mtl_backward` with the last hidden states as features, and the "
    "same saving: the output layer is the tasks' own and gets the sum of its two gradients, "
    "unprojected",
    "Pytorch-PCGrad style": "two backward passes through one graph in every micro-batch, each "
    "from cleared gradients, which are cloned and flattened into a vector per loss; the library "
    "knows no micro-batches, so the vectors are added up over them; at the end the projection of "
    "whole vectors, on copies of them, and the mean, as the library does it, written anew",
    "TorchJD, MLPs only": "as `sparing memory`, with `PCGrad` on the weights of MLPs, as one "
    "block, and `Sum` on the others",
    "Pytorch-PCGrad style, MLPs only": "the same, with the part of the vectors that belongs to "
    "MLPs projected",
}


def _in_mlp(name: str) -> bool:
    """The paper's scope, which neither library knows."""
    return ".mlp." in name


class PlainEngine(FSDPEngineWithLMHead):
    """The stock engine with a model that nothing has wrapped."""

    def _build_fsdp_module(self, module: nn.Module) -> nn.Module:
        precision = {"fp32": torch.float32, "bf16": torch.bfloat16}
        # FSDP keeps weights in float32 and computes in this; without it autocast does.
        self._autocast_dtype = precision[self.engine_config.mixed_precision["param_dtype"]]
        plain: nn.Module = module.to(get_device_name())
        return plain

    def to(
        self, device: str, model: bool = True, optimizer: bool = True, grad: bool = True
    ) -> None:
        """Move the module itself: there are no shards."""
        if model:
            self.module.to(device)
        if optimizer and self.optimizer is not None:
            load_fsdp_optimizer(self.optimizer, device)


class PeerEngine(PlainEngine):
    """Two losses in every micro-batch, and a peer's way with them.

    Args:
        mlps: whether only the weights of MLPs are projected.
        **parts: of the stock engine.
    """

    def __init__(self, *, mlps: bool = False, **parts: Any) -> None:
        super().__init__(**parts)
        self._mlps = mlps

    def is_projected(self, name: str) -> bool:
        """Whether the rule is for a parameter.

        Args:
            name: of the parameter.
        """
        return _in_mlp(name) or not self._mlps

    @abstractmethod
    def backward(self, losses: list[Tensor]) -> None:
        """Run a micro-batch's losses backward."""

    @abstractmethod
    def finish(self) -> None:
        """Leave the gradient of the mini-batch on the parameters."""

    def forward_backward_batch(
        self, data: Any, loss_function: Any, forward_only: bool = False
    ) -> Any:
        """The stock loop over micro-batches, then what the peer does once."""
        output = super().forward_backward_batch(data, loss_function, forward_only)
        self.finish()
        return output

    def forward_step(self, micro_batch: Any, loss_function: Any, forward_only: bool) -> Any:
        """One forward pass; what the loop then runs backward is the peer's."""
        split = SplitLoss(loss_function, lambda _: None)
        losses: list[Tensor] = []

        def both(**inputs: Any) -> tuple[Tensor, dict[str, Any]]:
            surrogate, metrics = split.plasticity()(**inputs)
            stability, _ = split.stability()(**inputs)
            losses.extend([surrogate, split.beta * stability])
            return surrogate, metrics

        _, output = super().forward_step(micro_batch, both, forward_only)
        return _Both(self.backward, losses), output


class _Both:
    """What veRL's loop calls `backward` of."""

    def __init__(self, backward: Callable[[list[Tensor]], None], losses: list[Tensor]) -> None:
        self._backward = backward
        self._losses = losses

    def backward(self) -> None:
        """Run both, and let go of their graph before the next micro-batch's."""
        self._backward(self._losses)
        self._losses.clear()


class TorchJDEngine(PeerEngine):
    """`torchjd.autojac` with PCGrad on all parameters together.

    Args:
        sparing: with the saving of memory that the library offers.
        mtl: with the output layer as the tasks' own.
        **parts: of the engine.
    """

    def __init__(self, *, sparing: bool = False, mtl: bool = False, **parts: Any) -> None:
        super().__init__(**parts)
        self._sparing = sparing
        self._mtl = mtl
        self._features: list[Tensor] = []

    def initialize(self) -> None:
        """The stock engine, and a look at the last hidden states."""
        super().initialize()
        if self._mtl:
            head = self.module.get_output_embeddings()
            head.register_forward_pre_hook(lambda _, inputs: self._features.append(inputs[0]))

    def backward(self, losses: list[Tensor]) -> None:
        """Add the micro-batch's Jacobian."""
        from torchjd.autojac import backward, mtl_backward

        if self._mtl:
            features = self._features.pop()
            # The losses have the path from the output layer on in common.
            mtl_backward(losses, features=features, retain_graph=True, parallel_chunk_size=1)
        else:
            backward(losses, parallel_chunk_size=1)

    def finish(self) -> None:
        """From the Jacobian to the gradient."""
        from torchjd.aggregation import PCGrad, Sum
        from torchjd.autojac import jac_to_grad

        inside, outside = [], []
        for name, parameter in self.module.named_parameters():
            if getattr(parameter, "jac", None) is not None:
                (inside if self.is_projected(name) else outside).append(parameter)
        jac_to_grad(inside, PCGrad(), optimize_gramian_computation=self._sparing)
        if outside:
            jac_to_grad(outside, Sum())


class FlattenedEngine(PeerEngine):
    """Two full gradients as vectors."""

    def initialize(self) -> None:
        """The stock engine, and what keeps the vectors."""
        super().initialize()
        inside = {id(p) for name, p in self.module.named_parameters() if self.is_projected(name)}
        self._projection = FlattenedPCGrad(self.optimizer, lambda p: id(p) in inside)

    def backward(self, losses: list[Tensor]) -> None:
        """Add the micro-batch's vectors."""
        self._projection.backward(losses)

    def finish(self) -> None:
        """Project, and set the gradients."""
        self._projection.finish()


class UnshardedEngine(FsdpTwoGradientEngine, PlainEngine):
    """Our own, on the model as the peers have it."""


_PEERS: dict[str, Callable[..., Any]] = {
    "plain": PlainEngine,
    "torchjd": TorchJDEngine,
    "torchjd_sparing": partial(TorchJDEngine, sparing=True),
    "torchjd_mtl": partial(TorchJDEngine, sparing=True, mtl=True),
    "flattened": FlattenedEngine,
    "torchjd_mlps": partial(TorchJDEngine, sparing=True, mlps=True),
    "flattened_mlps": partial(FlattenedEngine, mlps=True),
    "unsharded": UnshardedEngine,
}


def new_peer(name: str, actor: Any, **parts: Any) -> Any:
    """The engine of a peer.

    Args:
        name: of the peer.
        actor: the actor's configuration.
        parts: `model_config` and `optimizer_config`.

    Raises:
        ValueError: several ranks; peers know one process.
    """
    if torch.distributed.get_world_size() > 1:
        raise ValueError(f"{name}: measured on one process only")
    engine = _PEERS[name](
        engine_config=actor.engine,
        checkpoint_config=CheckpointConfig(),
        **parts,
    )
    engine.initialize()
    return engine
