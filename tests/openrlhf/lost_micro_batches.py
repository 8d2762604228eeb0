"""DeepSpeed as OpenRLHF drives it under dynamic batches: no OpenRLHF, no plugin.

Prints, for every stage and with or without the fix, how far the update is from that of the whole
mini-batch. `python -m tests.openrlhf.lost_micro_batches`, in OpenRLHF's environment.
"""

import os

from tests.openrlhf import cpu

MICRO_BATCHES = 4


def relative_error(stage: int, *, marked: bool) -> float:
    """One step over four micro-batches, against plain autograd.

    Args:
        stage: of ZeRO.
        marked: whether DeepSpeed is told which micro-batch is the last.

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
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            "optimizer": {"type": "SGD", "params": {"lr": 1.0}},
        },
    )
    for index, x in enumerate(data):
        if marked:
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
    cpu.prepare_deepspeed()
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    for stage in (1, 2, 3):
        for marked in (False, True):
            error = relative_error(stage, marked=marked)
            print(f"stage {stage} marked {marked} error {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
