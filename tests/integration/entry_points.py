"""veRL's trainers by how they are started: the configuration that each composes."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.integration.recipes import ACTOR, RECIPE

ROLLOUT = "actor_rollout_ref.rollout"
# As veRL's documentation starts them: devices of their own for the rollout.
_APART = ("actor_rollout_ref.hybrid_engine=False", f"{ROLLOUT}.checkpoint_engine.backend=nccl")
_MEGATRON = (f"{ACTOR}.strategy=megatron",)
_V1 = "trainer.v1.trainer_mode"


@dataclass(frozen=True)
class EntryPoint:
    """One way to start a training.

    Attributes:
        module: what `python -m` gets.
        config: name of its configuration, in the folder `config` beside the module.
        overrides: what makes it this trainer, or what it asks for.
        backend: the engine backend that a rule is on then.
    """

    module: str
    config: str
    overrides: tuple[str, ...] = ()
    backend: str = "pcr:fsdp2"

    def composed(self, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
        """The configuration of `python -m MODULE RECIPE OVERRIDES`.

        Args:
            overrides: further ones.
            with_hydra: also Hydra's own part.
        """
        spec = find_spec(self.module)
        assert spec is not None
        assert spec.origin is not None
        # Some of them name this folder as it is called from the root of a checkout.
        search_path = "hydra.searchpath=[pkg://verl.trainer.config]"
        with initialize_config_dir(str(Path(spec.origin).parent / "config"), version_base=None):
            typed = [search_path, *RECIPE, *self.overrides, *overrides]
            return compose(self.config, overrides=typed, return_hydra_config=with_hydra)


_MAIN = ("verl.trainer.main_ppo", "ppo_trainer")
_FULLY_ASYNC = "verl.experimental.fully_async_policy.fully_async_main"
_ONE_STEP_OFF = "verl.experimental.one_step_off_policy.main_ppo"
_NO_BATCH = ("data.train_batch_size=0",)  # it takes samples as they come

ENTRY_POINTS = {
    "sync": EntryPoint(*_MAIN, (f"{_V1}=sync",)),
    "colocate async": EntryPoint(*_MAIN, (f"{_V1}=colocate_async",)),
    "separate async": EntryPoint(
        *_MAIN,
        (
            f"{_V1}=separate_async",
            "trainer.v1.separate_async.parameter_sync_step=2",
            *_APART[1:],
            f"{ROLLOUT}.nnodes=1",
            f"{ROLLOUT}.n_gpus_per_node=2",
        ),
    ),
    "version 0": EntryPoint(*_MAIN, ("trainer.use_v1=False",)),
    "fully async": EntryPoint(
        _FULLY_ASYNC, "fully_async_ppo_trainer", (*_APART, *_NO_BATCH), "pcr:fsdp2"
    ),
    "fully async, Megatron": EntryPoint(
        _FULLY_ASYNC,
        "fully_async_ppo_megatron_trainer",
        (*_APART, *_NO_BATCH, *_MEGATRON),
        "pcr:megatron",
    ),
    "one step off": EntryPoint(_ONE_STEP_OFF, "one_step_off_ppo_trainer", _APART),
    "one step off, Megatron": EntryPoint(
        _ONE_STEP_OFF,
        "one_step_off_ppo_megatron_trainer",
        (*_APART, *_MEGATRON),
        "pcr:megatron",
    ),
}
