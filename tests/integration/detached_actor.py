"""The actor's worker of veRL's fully asynchronous trainer, alone in a process, under several rules.

    python -m tests.integration.detached_actor FOLDER

The configuration is the trainer's own. Two updates, with what decoupled PPO does in between: the
weights of the last synchronisation are put back for their log-probabilities, and taken out again.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

RULES = (None, "sum", "pcr")
PROMPT, RESPONSE, ROWS = 4, 6, 8


def mini_batch(seed: int) -> Any:
    """Rows as the trainer hands them to the worker.

    Args:
        seed: of tokens, advantages and the reference's log-probabilities.
    """
    from tests.support.trajectory import Trajectory
    from tests.support.verl_batch import verl_batch

    generator = torch.Generator().manual_seed(seed)

    def numbers(spread: float) -> torch.Tensor:
        return spread * torch.randn(RESPONSE, generator=generator)

    rows = [
        Trajectory(
            prompt=torch.randint(1, 200, (PROMPT,), generator=generator),
            response=torch.randint(1, 200, (RESPONSE,), generator=generator),
            mask=torch.ones(RESPONSE, dtype=torch.int64),
            old_log_probs=-5.5 + numbers(0.1),
            # What is rewarded, the reference thinks less likely: the gradients are in conflict.
            ref_log_probs=-5.5 - 0.3 * advantage + numbers(0.1),
            advantages=torch.full((RESPONSE,), advantage),
        )
        for advantage in (-1.5, -0.5, 0.5, 1.5) * (ROWS // 4)
    ]
    return verl_batch(
        rows,
        range(ROWS),
        temperature=1.0,
        calculate_entropy=False,
        distillation_use_topk=False,
        distillation_only=False,
        global_batch_size=ROWS,
        mini_batch_size=ROWS,
        epochs=1,
        seed=42,
        dataloader_kwargs={"shuffle": False},
        compute_loss=True,
    )


def record(folder: Path, rule: str | None) -> dict[str, Any]:
    """Build the worker and run it.

    Args:
        folder: what `small_run.prepare` wrote.
        rule: the value of `update_rule`.

    Returns:
        Class name of the engine, metrics of both updates, log-probabilities before the first
        update, after it, and of the weights put back; the weights at the end.
    """
    from omegaconf import OmegaConf
    from verl.experimental.separation.engine_workers import DetachActorWorker
    from verl.utils import tensordict_utils as tu

    from pcr_plugin.verl_cpu.overrides import NEEDED
    from tests.integration.entry_points import ENTRY_POINTS, ROLLOUT
    from tests.integration.recipes import ACTOR

    config = ENTRY_POINTS["fully async"].composed(
        [
            *(f"{key}={value}" for key, value in NEEDED.items()),
            f"actor_rollout_ref.model.path={folder}/model",
            f"{ACTOR}.update_rule={rule or 'null'}",
            f"{ACTOR}.strategy=fsdp",
            f"{ACTOR}.optim.lr=1e-3",
            f"{ACTOR}.kl_loss_coef=0.05",
            # Its own sends weights from one accelerator to another; no update goes through it.
            f"{ROLLOUT}.checkpoint_engine.backend=naive",
        ]
    )
    OmegaConf.resolve(config)
    worker = DetachActorWorker(config.actor_rollout_ref, role="actor")
    worker.init_model()
    engine = worker.actor.engine

    def log_probs() -> torch.Tensor:
        data = mini_batch(0)
        tu.assign_non_tensor(data, compute_loss=False)
        values: torch.Tensor = tu.get(worker.compute_log_prob(data), "log_probs").values()
        return values.clone()

    found: dict[str, Any] = {"engine": type(engine).__name__, "first": log_probs()}
    worker.save_model_to_cpu(1)
    found["metrics"] = [tu.get(worker.update_actor(mini_batch(1)), "metrics")]
    worker.save_model_to_cpu(2)
    found["current"] = log_probs()
    worker.restore_model_from_cpu(1)
    found["restored"] = log_probs()
    worker.restore_model_from_cpu(2)
    worker.clear_cpu_model(2)
    found["metrics"].append(tu.get(worker.update_actor(mini_batch(2)), "metrics"))
    state = [parameter.detach().flatten() for parameter in engine.module.parameters()]
    found["weights"] = torch.cat(state)
    return found


def main(folder: Path) -> None:
    """One worker after the other in this process.

    Args:
        folder: what `small_run.prepare` wrote; gets the records.
    """
    torch.save({rule: record(folder, rule) for rule in RULES}, folder / "records.pt")


if __name__ == "__main__":
    # What Ray gives a worker.
    os.environ |= {"VERL_PLATFORM": "cpu", "RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    main(Path(sys.argv[1]))
