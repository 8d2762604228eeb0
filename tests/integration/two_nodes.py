"""veRL's actor workers on two Ray nodes, one of which is not as it should be.

`python -m tests.integration.two_nodes <folder>`: the nodes are Ray's own, all on this machine, each
with an address of its own. What happened is written to `<folder>/found.json`.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from ray.cluster_utils import Cluster
from verl.single_controller.ray import (
    RayClassWithInitArgs,
    RayResourcePool,
    RayWorkerGroup,
    create_colocated_worker_cls,
)
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.utils.config import validate_config
from verl.utils.metric import reduce_metrics
from verl.workers.engine_workers import ActorRolloutRefWorker

from tests.integration import nodes, small_run
from tests.support.trajectory import Trajectory
from tests.support.verl_batch import verl_batch

RULE = [
    "trainer.nnodes=2",
    "actor_rollout_ref.actor.update_rule=pcr",
    "actor_rollout_ref.actor.pcr.preset=robust",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
]
ROWS = 16
MINI_BATCH = 8
# Each training step is two of the optimizer's. The fifth is in the third training step.
LOST_IN = 5
# What Ray takes for the resources of the nodes that are started.
RESOURCES = "RAY_OVERRIDE_RESOURCES"
# Ray gives a node up that has not answered five times, by default ten seconds each.
IMPATIENT = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000}


class Actors:
    """The actor's workers as veRL's trainer starts them: one rank on each node.

    Args:
        config: of the run.
    """

    def __init__(self, config: DictConfig) -> None:
        self._pool = RayResourcePool([1, 1], use_gpu=True, max_colocate_count=1)
        actor = RayClassWithInitArgs(
            ray.remote(ActorRolloutRefWorker), config=config.actor_rollout_ref, role="actor"
        )
        kind = create_colocated_worker_cls({"actor": actor})
        group = RayWorkerGroup(self._pool, kind, device_name=config.trainer.device)
        self.group = group.spawn({"actor"})["actor"]

    def train(self, seed: int) -> dict[str, float]:
        """One training step, as the trainer asks for it."""
        settings = {
            "calculate_entropy": False,
            "global_batch_size": MINI_BATCH,
            "mini_batch_size": MINI_BATCH,
            "epochs": 1,
            "seed": 1,
            "dataloader_kwargs": {"shuffle": False},
            "temperature": 1.0,
        }
        output = self.group.update_actor(verl_batch(_rows(seed), range(ROWS), **settings))
        metrics = reduce_metrics(output["metrics"])
        times = ("perf/", "mfu", "pcr/seconds")
        return {name: float(metrics[name]) for name in metrics if not name.startswith(times)}

    def end(self) -> None:
        """Free what the workers have, as the end of a job does."""
        for worker in self.group.workers:
            ray.kill(worker)
        for group in self._pool.pgs or ():
            ray.util.remove_placement_group(group)


def _rows(seed: int) -> list[Trajectory]:
    """Answers of a model that knows nothing yet: every token is as likely as the others."""
    generator = torch.Generator().manual_seed(seed)

    def noise(size: float) -> torch.Tensor:
        return size * torch.randn(6, generator=generator) - 5.56

    return [
        Trajectory(
            prompt=torch.randint(4, 260, (4,), generator=generator),
            response=torch.randint(4, 260, (6,), generator=generator),
            mask=torch.ones(6, dtype=torch.int64),
            old_log_probs=noise(0.1),
            ref_log_probs=noise(0.3),
            advantages=torch.full((6,), float(-1 if row % 2 else 1)),
        )
        for row in range(ROWS)
    ]


def said(action: Callable[[], object]) -> dict[str, Any]:
    """The error that an action ends with, and when."""
    start = time.monotonic()
    try:
        action()
    except Exception as error:
        after = round(time.monotonic() - start, 1)
        return {"error": str(error), "kind": type(error).__name__, "after": after}
    return {"error": "", "kind": ""}


def add_node(cluster: Cluster, variables: dict[str, str]) -> Any:
    """The node of the second rank.

    Args:
        cluster: to add it to.
        variables: of its environment.
    """
    return cluster.add_node(node_ip_address=nodes.OTHER, env_vars=variables)


def refused(cluster: Cluster, config: DictConfig, variables: dict[str, str]) -> dict[str, Any]:
    """Start the workers where the second node has other variables."""
    node = add_node(cluster, variables)
    actors = Actors(config)
    found = said(actors.group.init_model)
    actors.end()
    cluster.remove_node(node)
    return found


def lost(cluster: Cluster, config: DictConfig, folder: Path, variables: dict[str, str]) -> Any:
    """Train; in the middle of the third step the second node does not answer any more."""
    mark = folder / "in-the-step"
    node = add_node(cluster, variables | {"WAIT_IN_FILE": str(mark)})
    actors = Actors(config)
    actors.group.init_model()
    actors.train(seed=1)
    actors.group.save_checkpoint(str(folder / "first"))
    metrics = actors.train(seed=2)
    actors.group.save_checkpoint(str(folder / "second"))
    frozen: list[psutil.Process] = []
    over = threading.Event()

    def freeze() -> None:
        while not mark.exists() and not over.wait(0.05):
            pass
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        frozen.extend([raylet, *raylet.children(recursive=True)])
        for process in frozen:
            process.suspend()

    freezer = threading.Thread(target=freeze)
    freezer.start()
    found = said(lambda: actors.train(seed=3))
    over.set()
    freezer.join()
    assert mark.exists(), found
    found["after"] = round(time.time() - mark.stat().st_mtime, 1)
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    actors.end()
    cluster.remove_node(node)
    return found | {"metrics": metrics}


def resumed(cluster: Cluster, config: DictConfig, folder: Path, variables: dict[str, str]) -> Any:
    """The second training step once more, on another node; then that one's disk is full."""
    node = add_node(cluster, variables)
    actors = Actors(config)
    actors.group.init_model()
    actors.group.load_checkpoint(str(folder / "first"))
    metrics = actors.train(seed=2)
    actors.group.save_checkpoint(str(folder / "again"))
    full = folder / "full"
    full.mkdir()
    # Linux's own disk without space, for the file that rank 1 is to write.
    (full / "optim_world_size_2_rank_1.pt").symlink_to("/dev/full")
    found = said(lambda: actors.group.save_checkpoint(str(full)))
    actors.end()
    cluster.remove_node(node)
    return {"metrics": metrics, "full": found}


def main(folder: Path) -> None:
    """Run everything on one cluster.

    Args:
        folder: for the model, the checkpoints and what was found.
    """
    small_run.prepare(folder)
    recipe = small_run.overrides(folder, steps=1) + RULE
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=recipe)
    validate_config(config, use_reference_policy=True, use_critic=False)
    OmegaConf.resolve(config)
    waiting = nodes.that_waits(folder / "waits", LOST_IN)
    # The driver's own node has no device, so each rank is on another one. The address decides
    # which is the first.
    os.environ[RESOURCES] = json.dumps({"CPU": 16})
    head = {"include_dashboard": False, "_system_config": IMPATIENT}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    os.environ[RESOURCES] = json.dumps({"CPU": 16, "NPU": 1})
    cluster.add_node(node_ip_address=nodes.GOOD, env_vars=waiting)
    try:
        ray.init(address=cluster.address, runtime_env=get_ppo_ray_runtime_env(config))
        found = {}
        for name, prepare in (
            ("missing", nodes.without_the_plugin),
            ("other", nodes.with_another_release),
            ("broken", nodes.with_a_broken_copy),
        ):
            found[name] = refused(cluster, config, prepare(folder / name))
        found["lost"] = lost(cluster, config, folder, waiting)
        found["resumed"] = resumed(cluster, config, folder, waiting)
        (folder / "found.json").write_text(json.dumps(found, indent=1))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
