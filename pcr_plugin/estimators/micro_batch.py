"""Unit: one rank's micro-batch. Norms are read by hooks before gradients are accumulated."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pcr_plugin.estimators.base import Objective, RunPass, UnitColumns
from pcr_plugin.gradients import Local

_MARK = "_pcr_plugin_hooked"


class MicroBatchEstimator:
    """Sums ||g_m||^2 / n_m over this rank's micro-batches.

    Under FSDP2 the parameters of `model.parameters()` are shards that autograd never sees. The
    unsharded parameter stands in the module that owns it while that module runs, so a forward
    pre-hook on the owner finds it there and puts the gradient hook on it, once. The gradient
    hook gets one micro-batch's whole gradient on this rank, before the reduction.

    Args:
        module: the model.
        block_of: block of every in-scope parameter, by name.
        blocks: number of blocks B.
        gradient_scale: hook value times this is the micro-batch's contribution to the reduced
            gradient: 1 / world_size where the host averages over ranks.
        device: where the sums live.
    """

    def __init__(
        self,
        module: nn.Module,
        block_of: dict[str, int],
        blocks: int,
        gradient_scale: float,
        device: torch.device,
    ) -> None:
        self._block_of = block_of
        self._scale = gradient_scale**2
        self._sums = torch.zeros(blocks, 2, dtype=torch.float64, device=device)
        self._units = 0
        self._mass = 0.0
        self._seconds = 0.0
        self._objective: Objective | None = None
        self._size = 0.0
        self._calls: dict[str, int] = {}
        self._micro_batches = 0
        self._attach(module)

    @property
    def seconds(self) -> float:
        """Time that this step's passes have spent in the hooks (on a GPU: to launch them)."""
        return self._seconds

    def begin(self) -> None:
        """Forget the last step."""
        self._sums.zero_()
        self._seconds = 0.0

    def start_unit(self, size: float) -> None:
        """Announce the micro-batch whose backward pass comes next.

        Args:
            size: its number n_m of tokens or sequences. A unit of size 0 is dropped.
        """
        self._size = size
        self._micro_batches += 1
        self._mass += size
        self._units += size > 0

    def collect(self, objective: Objective, run: RunPass) -> None:
        """Run the objective's pass over the whole mini-batch with the hooks on.

        Raises:
            RuntimeError: a hook fired more or fewer times than there were micro-batches.
        """
        with self._watching(objective):
            run(None)
        wrong = {
            name: self._calls.get(name, 0)
            for name in self._block_of
            if self._calls.get(name, 0) != self._micro_batches
        }
        if wrong:
            raise RuntimeError(
                f"pcr.variance.estimator='micro_batch' saw {wrong} gradients of these parameters "
                f"in {self._micro_batches} micro-batches. The variance would be wrong. "
                "Use pcr.variance.estimator=split_half, which needs no hooks."
            )

    def columns(self, plasticity: Local, stability: Local) -> UnitColumns:
        """The sums of this step; the shards are not needed."""
        constant = self._sums.new_ones(self._sums.shape[0])
        return UnitColumns(
            squares=self._sums * self._scale,
            mass=constant * self._mass,
            units=constant * self._units,
            cross=constant * torch.nan,
        )

    @contextmanager
    def _watching(self, objective: Objective) -> Iterator[None]:
        self._objective, self._calls = objective, {}
        self._micro_batches, self._units, self._mass = 0, 0, 0.0
        try:
            yield
        finally:
            self._objective = None

    def _attach(self, module: nn.Module) -> None:
        owned: dict[str, list[tuple[str, str]]] = {}
        for name in self._block_of:
            owner, _, attribute = name.rpartition(".")
            owned.setdefault(owner, []).append((attribute, name))
        for owner, members in owned.items():
            module.get_submodule(owner).register_forward_pre_hook(self._hook_members(members))

    def _hook_members(
        self, members: list[tuple[str, str]]
    ) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def find_unsharded(owner: nn.Module, inputs: tuple[object, ...]) -> None:
            for attribute, name in members:
                parameter = getattr(owner, attribute)
                if not getattr(parameter, _MARK, False) and parameter.requires_grad:
                    parameter.register_hook(self._hook_gradient(name))
                    setattr(parameter, _MARK, True)

        return find_unsharded

    def _hook_gradient(self, name: str) -> Callable[[Tensor], None]:
        block = self._block_of[name]

        def add_square(gradient: Tensor) -> None:
            if self._objective is None:
                return
            start = time.perf_counter()
            self._calls[name] = self._calls.get(name, 0) + 1
            if self._size > 0:
                at_least_float32 = torch.promote_types(gradient.dtype, torch.float32)
                norm = torch.linalg.vector_norm(gradient, dtype=at_least_float32).double()
                self._sums[block, self._objective] += norm**2 / self._size
            self._seconds += time.perf_counter() - start

        return add_square
