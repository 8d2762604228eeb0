"""Megatron-core on the CPU with gloo, without TransformerEngine, apex and flash-attention.

No shim touches a number outside of `exactly`; they choose devices and stand in for what only a GPU
build has. They change torch for the whole process, so only processes that a test starts may install
them, before they import Megatron-core.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.support.shims import Shim
from tests.support.shims import install as install_shims

CPU = torch.device("cpu")


def install() -> None:
    """Redirect torch.cuda, then replace what Megatron-core lacks without TransformerEngine.

    Raises:
        ImportError: a symbol is missing.
    """
    install_shims(TORCH)
    _OnCPU().__enter__()
    _define_missing_names()
    install_shims(MEGATRON)


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """What is asked to be float32 is float64: weights, activations, main gradients, optimizer.

    Megatron-core has no float64 of its own. Tensors that are float32 already stay so until
    something converts them.
    """
    before, torch_default = _OnCPU.exact, torch.get_default_dtype()
    _OnCPU.exact = True
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        _OnCPU.exact = before
        torch.set_default_dtype(torch_default)


class _OnCPU(TorchFunctionMode):
    """Literals: `device="cuda"`, `pin_memory=True`, `tensor.cuda()`; `torch.float32` if exact.

    In the schedules, the clipping of gradients, the optimizers, the rotary embedding.
    """

    exact = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.cuda:
            return args[0]
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if "device" in kwargs:
            kwargs["device"] = _redirected(kwargs["device"])
        # Bytes that are read as numbers are what they are.
        if "dtype" in kwargs and func not in (Tensor.view, torch.frombuffer):
            kwargs["dtype"] = self._widened(kwargs["dtype"])
        if func is Tensor.to:
            args = (args[0], *(self._widened(_redirected(value)) for value in args[1:]))
        return func(*args, **kwargs)

    def _widened(self, dtype: Any) -> Any:
        return torch.float64 if self.exact and dtype is torch.float32 else dtype


def _redirected(device: Any) -> Any:
    kind = device.type if isinstance(device, torch.device) else device
    return CPU if isinstance(kind, str) and kind.startswith("cuda") else device


def _current_device(original: Callable[..., Any]) -> Callable[..., Any]:
    # Gradient buffers, pipeline messages and the sequence-parallel mappings allocate on
    # `torch.cuda.current_device()`.
    return lambda: CPU


def _do_nothing(original: Callable[..., Any]) -> Callable[..., Any]:
    # Kernels run on the calling thread, and the allocator keeps no cache.
    return functools.wraps(original)(lambda *positional, **named: None)


def _no_ranges(original: Any) -> Any:
    # Ranges of a profiler.
    return SimpleNamespace(range_push=lambda message: None, range_pop=lambda: None)


def _one_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    # Streams order kernels; here they have one order.
    return lambda *positional, **named: _Stream()


def _no_context(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda stream=None: contextlib.nullcontext()


def _stream_class(original: type) -> type:
    class Stream(_Stream):
        pass

    return Stream


class _Stream:
    """A stream or an event of which everything is done at once."""

    def __init__(self, *positional: Any, **named: Any) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, *positional: Any) -> "_Stream":
        return self

    def synchronize(self) -> None: ...

    def record(self, *positional: Any) -> None: ...


def _cpu_state(original: Callable[..., Any]) -> Callable[..., Any]:
    # The tracker of random states swaps the device's; on the CPU there is one generator.
    return lambda *positional, **named: torch.get_rng_state()


def _set_cpu_state(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda state, *positional, **named: torch.set_rng_state(state)


def _seed_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda seed: torch.default_generator.manual_seed(int(seed))


def _cuda_type(original: Callable[..., Any]) -> Callable[..., Any]:
    # Optimizers and clipping sort parameters by the text "torch.cuda.FloatTensor"; a name for
    # float64 is not among what they know.
    def type_of(self: Tensor, *positional: Any, **named: Any) -> Any:
        answer = original(self, *positional, **named)
        # Under a mode torch looks the method up by name and so comes here a second time.
        if not isinstance(answer, str) or answer.startswith("torch.cuda."):
            return answer
        known = answer.replace("Double", "Float") if _OnCPU.exact else answer
        return known.replace("torch.", "torch.cuda.", 1)

    return type_of


def _widening(original: Callable[..., Any]) -> Callable[..., Any]:
    # Asks for float32 without naming it.
    def to_float(self: Tensor, *positional: Any, **named: Any) -> Any:
        return self.double() if _OnCPU.exact else original(self, *positional, **named)

    return to_float


TORCH = (
    Shim(symbol="torch.cuda:current_device", replace=_current_device),
    Shim(symbol="torch.cuda:synchronize", replace=_do_nothing),
    Shim(symbol="torch.cuda:empty_cache", replace=_do_nothing),
    Shim(symbol="torch.cuda:nvtx", replace=_no_ranges),
    Shim(symbol="torch.cuda:current_stream", replace=_one_stream),
    Shim(symbol="torch.cuda:default_stream", replace=_one_stream),
    Shim(symbol="torch.cuda:stream", replace=_no_context),
    Shim(symbol="torch.cuda:Stream", replace=_stream_class),
    Shim(symbol="torch.cuda:Event", replace=_stream_class),
    Shim(symbol="torch.cuda:get_rng_state", replace=_cpu_state),
    Shim(symbol="torch.cuda:set_rng_state", replace=_set_cpu_state),
    Shim(symbol="torch.cuda:manual_seed", replace=_seed_cpu),
    Shim(symbol="torch:Tensor.type", replace=_cuda_type),
    Shim(symbol="torch:Tensor.float", replace=_widening),
)


def _define_missing_names() -> None:
    # Megatron-core looks the name up, also without TransformerEngine, where it does not define it.
    module = importlib.import_module("megatron.core.transformer.moe.moe_utils")
    if not hasattr(module, "te_general_gemm"):
        module.te_general_gemm = None  # type: ignore[attr-defined]


def _sequence_parallel_norm(original: Callable[..., Any]) -> Callable[..., Any]:
    # torch's norm refuses sequence parallelism. It works on the tokens that a rank has; its
    # parameters must be marked so that their gradients are summed over the tensor-parallel ranks,
    # as TransformerEngine's norm marks them.
    def make(cls: type, config: Any, hidden_size: int, eps: float = 1e-5, **named: Any) -> Any:
        parallel, config.sequence_parallel = config.sequence_parallel, False
        try:
            norm = original(cls, config, hidden_size, eps, **named)
        finally:
            config.sequence_parallel = parallel
        for parameter in norm.parameters():
            parameter.sequence_parallel = parallel
        return norm

    return make


def _sizes_as_lists(original: Callable[..., Any]) -> Callable[..., Any]:
    # The experts' dispatcher keeps the split sizes in a tensor until it copies them to the host.
    def exchange(
        output: Tensor, input: Tensor, to: Any = None, source: Any = None, *rest: Any, **named: Any
    ) -> Any:
        def listed(name: str, sizes: Any) -> Any:
            sizes = named.pop(name, sizes)
            return sizes.tolist() if isinstance(sizes, Tensor) else sizes

        to, source = listed("output_split_sizes", to), listed("input_split_sizes", source)
        return original(output, input, to, source, *rest, **named)

    return exchange


def _with_states(original: Callable[..., Any]) -> Callable[..., Any]:
    # torch's Adam, in place of a fused one, counts its steps beside the moments, and has none
    # before its first step; to read a checkpoint Megatron-core asks for one nevertheless.
    def sharded_state_dict(self: Any, *positional: Any, **named: Any) -> Any:
        state = self.optimizer.state
        for parameter in [p for group in self.optimizer.param_groups for p in group["params"]]:
            if not state[parameter]:
                zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
                state[parameter] = {"step": torch.tensor(0.0), **zeros}
        return original(self, *positional, **named)

    return sharded_state_dict


def _resuming(original: Callable[..., Any]) -> Callable[..., Any]:
    # float32 parameters are the optimizer's own, and autograd does not let it overwrite them with
    # those of a checkpoint; of parameters in half precision it has copies. The checkpoint's number
    # of steps comes in as one tensor for all parameters, and then the local one goes over it.
    @torch.no_grad()
    def load_state_dict(self: Any, state_dict: dict[str, Any]) -> None:
        (steps,) = {group["step"] for group in state_dict["optimizer"]["param_groups"]}
        original(self, state_dict)
        for state in self.optimizer.state.values():
            state["step"] = torch.tensor(float(steps))

    return load_state_dict


def _mask_here(original: Callable[..., Any]) -> Callable[..., Any]:
    # Where activations are recomputed it is made inside of a backward pass, which sees no mode.
    return lambda tokens: torch.ones(tokens, tokens, dtype=torch.bool).triu(diagonal=1)


_RANDOM = "megatron.core.tensor_parallel.random"
MEGATRON = (
    Shim(symbol=f"{_RANDOM}:_get_cuda_rng_state", replace=_cpu_state),
    Shim(symbol=f"{_RANDOM}:_set_cuda_rng_state", replace=_set_cpu_state),
    Shim(
        symbol="megatron.core.transformer.torch_norm:WrappedTorchNorm.__new__",
        replace=_sequence_parallel_norm,
    ),
    Shim(
        symbol="megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.sharded_state_dict",
        replace=_with_states,
    ),
    Shim(
        symbol="megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.load_state_dict",
        replace=_resuming,
    ),
    Shim(symbol="megatron.core.fusions.fused_softmax:get_default_causal_mask", replace=_mask_here),
    Shim(symbol="torch.distributed:all_to_all_single", replace=_sizes_as_lists),
)
