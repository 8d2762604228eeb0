"""The small run with veRL's Megatron engine: two tensor-parallel workers."""

import os
from pathlib import Path

from tests.integration.small_run import Run, overrides, run
from tests.support.megatron_layout import NO_FUSION

ROOT = Path(__file__).parents[2]
WORKERS = 2
_MEGATRON = "actor_rollout_ref.actor.megatron"
MEGATRON = [
    "model_engine=megatron",
    "actor_rollout_ref.actor.strategy=megatron",
    f"{_MEGATRON}.tensor_model_parallel_size={WORKERS}",
    # The other bridge needs TransformerEngine, and so do packed sequences.
    f"{_MEGATRON}.vanilla_mbridge=True",
    f"{_MEGATRON}.use_remove_padding=False",
    *(
        f"+{_MEGATRON}.override_transformer_config.{key}={value}"
        for key, value in NO_FUSION.items()
    ),
    # mbridge turns it on whenever there are tensor-parallel ranks and no override.
    f"+{_MEGATRON}.override_transformer_config.sequence_parallel=False",
    *(
        f"actor_rollout_ref.{role}.megatron.{setting}"
        for role in ("actor", "ref")
        for setting in ("sequence_parallel=False", "dtype=float32")
    ),
]


def run_megatron(folder: Path, extra: list[str], *, steps: int = 2) -> Run:
    """Run the real `main_ppo` on Megatron-core.

    Args:
        folder: what `prepare` wrote.
        extra: further overrides.
        steps: training steps, from the first of all runs on.
    """
    return run(
        folder,
        extra,
        recipe=megatron_overrides(folder, steps),
        PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        VERL_USE_EXTERNAL_MODULES="tests.support.megatron_in_workers",
    )


def megatron_overrides(folder: Path, steps: int) -> list[str]:
    """The recipe of `small_run` without the keys of FSDP, which this configuration lacks."""
    common = [key for key in overrides(folder, steps, WORKERS) if "fsdp" not in key]
    return [*common, *MEGATRON]
