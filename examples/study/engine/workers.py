"""veRL's actor and reference workers, in this process instead of Ray's."""

import os
from copy import deepcopy
from typing import Any

import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from torch.distributed import HashStore  # type: ignore[attr-defined]
from verl.utils.config import validate_config
from verl.workers.engine_workers import ActorRolloutRefWorker

from examples.study.engine.log_probs import take_all_at_once

# What Ray's worker group tells a worker. The address is not used: the process group is made here.
_ONE_PROCESS = {
    "WORLD_SIZE": "1",
    "RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


def start_workers(config: DictConfig) -> tuple[Any, Any]:
    """The actor, which trains, and the reference.

    Args:
        config: of a whole run, as `main_ppo` takes it; checked as `main_ppo` does.

    Raises:
        ValueError: what veRL or the rule refuses.
    """
    OmegaConf.resolve(config)
    validate_config(config, use_reference_policy=True, use_critic=False)
    os.environ.update(_ONE_PROCESS)
    take_all_at_once()
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    actor, reference = (
        # A worker changes its configuration.
        ActorRolloutRefWorker(deepcopy(config.actor_rollout_ref), role=role)
        for role in ("actor", "ref")
    )
    actor.init_model()
    reference.init_model()
    return actor, reference
