"""DeepSpeed as OpenRLHF drives it under dynamic batches: no OpenRLHF, no plugin.

Prints how far the update is from that of the whole mini-batch, for every stage, with and without
the fix. One file and one process, with nothing but torch and deepspeed 0.19.6:
`DS_ACCELERATOR=cpu python lost_micro_batches.py`.
"""

import itertools
import os
from typing import Any

MICRO_BATCHES = 4
# As OpenRLHF does; with the report's fix; with DeepSpeed's other way.
WAYS = ("as_is", "marked", "unmanaged")


def relative_error(stage: int, way: str, *, offload: bool) -> float:
    """One step over four micro-batches, against plain autograd.

    Args:
        stage: of ZeRO.
        way: of `WAYS`.
        offload: keep the optimizer on the CPU.

    Returns:
        ||update - expected|| / ||expected||.
    """
    import deepspeed
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8, bias=False)
    data = torch.randn(MICRO_BATCHES, 3, 8)
    before = model.weight.detach().clone()
    (expected,) = torch.autograd.grad(sum(model(x).square().sum() for x in data), model.weight)
    zero: dict[str, Any] = {"stage": stage}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "optimizer": {"type": "SGD", "params": {"lr": 1.0}},
            **({"managed_gradient_accumulation": False} if way == "unmanaged" else {}),
        },
    )
    for index, x in enumerate(data):
        if way == "marked":
            engine.set_gradient_accumulation_boundary(index == MICRO_BATCHES - 1)
        engine.backward(engine(x).square().sum())
    engine.step()
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        moved = before - engine.module.weight.detach()
        return float((moved - expected).norm() / expected.norm())


def main() -> None:
    """Print the table, on one rank."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from torch import distributed

    # Otherwise its shared-memory collectives are compiled, which takes minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    for stage, offload, way in itertools.product((1, 2, 3), (False, True), WAYS):
        error = relative_error(stage, way, offload=offload)
        place = "offloaded" if offload else "-"
        print(f"stage {stage} {place} {way} error {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
