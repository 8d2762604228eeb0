"""What lets OpenRLHF's and DeepSpeed's own classes run without an accelerator; test support."""

import functools
import os
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")
# `compute_entropy` is compiled, which takes a minute and a compiler.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


class _Cpu(str):
    """OpenRLHF moves tensors to `torch.cuda.current_device()`, and once writes `cuda:{...}`."""

    def __format__(self, _: str) -> str:
        return "0"


def prepare() -> None:
    """Patch this process; before OpenRLHF is imported."""
    prepare_deepspeed()
    import torch

    for name in ("synchronize", "empty_cache", "set_device"):
        setattr(torch.cuda, name, _nothing)
    torch.cuda.current_device = lambda: _Cpu("cpu")  # type: ignore[assignment, return-value]
    from openrlhf.utils import utils
    from openrlhf.utils.deepspeed import deepspeed as strategies

    of_half = utils.convert_to_torch_dtype
    utils.convert_to_torch_dtype = lambda name: torch.float32 if name == "fp32" else of_half(name)
    mesh_of = strategies.init_device_mesh
    strategies.init_device_mesh = lambda _, *shape, **names: mesh_of("cpu", *shape, **names)


def prepare_deepspeed() -> None:
    """The part that has nothing to do with OpenRLHF."""
    import deepspeed

    # Otherwise its shared-memory collectives are compiled at the first start.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    # Gathering several parameters, DeepSpeed waits for the last gather alone. On a stream that is
    # enough; gloo's threads finish in any order, and weights come out as uninitialised memory.
    for name in ("all_gather", "all_gather_into_tensor"):
        waited_for = _waited_for(getattr(deepspeed.comm.comm, name))
        for module in (deepspeed.comm, deepspeed.comm.comm):
            setattr(module, name, waited_for)


def _waited_for(collective: Any) -> Any:
    @functools.wraps(collective)
    def call(*arguments: Any, **named: Any) -> Any:
        handle = collective(*arguments, **named)
        if handle is not None:
            handle.wait()
        return handle

    return call


def _nothing(*_: Any, **__: Any) -> None:
    pass


def prepare_workers() -> None:
    """`prepare` for Ray's workers, whose AdamW has to be torch's: DeepSpeed's is compiled."""
    prepare()
    from openrlhf.utils.deepspeed import DeepspeedStrategy

    stock = DeepspeedStrategy.get_ds_train_config

    def with_torch_adam(self: Any, optim_dict: Any = None, *, max_norm: Any = None) -> Any:
        if optim_dict is not None:
            optim_dict["params"]["torch_adam"] = True
        return stock(self, optim_dict, max_norm=max_norm)

    DeepspeedStrategy.get_ds_train_config = with_torch_adam
