"""OpenRLHF's command under real Ray, on the CPU: everything but the engine that generates.

`python -m tests.openrlhf.whole_run <folder> <arguments of the command>`, in OpenRLHF's environment,
with the folder that `prepare` has filled. The command's parser, checks, `train`, launcher, policy
and reference actors and controller run; `controller` makes the answers up.
"""

import sys
from pathlib import Path
from typing import Any

from tests.openrlhf import cpu
from tests.openrlhf.tokenizer import save_tokenizer

RANKS = 2
STEPS = 2
_PROMPTS_OF_STEP = 6


def arguments(folder: Path) -> list[str]:
    """A GRPO recipe of OpenRLHF, without any key of ours.

    Args:
        folder: what `prepare` has filled.
    """
    return [
        *("--actor.model_name_or_path", str(folder / "model")),
        *("--actor.num_gpus_per_node", str(RANKS), "--ref.num_gpus_per_node", "1"),
        *("--reward.remote_url", "none", "--vllm.num_engines", "0", "--vllm.sync_backend", "gloo"),
        *("--algo.advantage.estimator", "group_norm", "--rollout.n_samples_per_prompt", "2"),
        *("--rollout.batch_size", str(_PROMPTS_OF_STEP), "--rollout.micro_batch_size", "2"),
        *("--train.batch_size", str(2 * _PROMPTS_OF_STEP), "--train.micro_batch_size", "2"),
        *("--algo.kl.use_loss", "--algo.kl.estimator", "k2", "--algo.kl.init_coef", "0.05"),
        *("--ds.attn_implementation", "eager", "--actor.adam.lr", "1e-2"),
        *("--actor.lr_scheduler", "constant", "--data.prompt_dataset", str(folder / "prompts")),
        *("--data.max_len", "64", "--rollout.max_new_tokens", "16"),
    ]


def prepare(folder: Path) -> None:
    """Make a tokenizer for the model, and the prompts.

    Args:
        folder: with a checkpoint in `model`.
    """
    from datasets import Dataset

    save_tokenizer(folder / "model")
    prompts = [{"input": f"{n + 2} {2 * n + 3} 7"} for n in range(STEPS * _PROMPTS_OF_STEP)]
    Dataset.from_list(prompts).save_to_disk(folder / "prompts")


def main(folder: Path, *more: str) -> None:
    """Run the command once.

    Args:
        folder: what `prepare` has filled.
        *more: further arguments of the command.
    """
    cpu.prepare_workers()
    import ray
    from openrlhf.trainer import ppo_trainer

    from pcr_plugin.openrlhf import __main__ as command
    from tests.openrlhf.controller import Controller

    stand_in: Any = ray.remote(Controller)
    ppo_trainer.PPOTrainer = stand_in
    # The "GPUs" are Ray's bookkeeping: policy and reference ask for one each. They are never given
    # back, since OpenRLHF's placement groups live as long as the session.
    ray.init(
        num_cpus=RANKS + 2,
        num_gpus=RANKS + 1,
        include_dashboard=False,
        runtime_env={"worker_process_setup_hook": "tests.openrlhf.cpu.prepare_workers"},
    )
    sys.argv = ["train_ppo_ray", *arguments(folder), *more]
    try:
        command.main()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    if sys.argv[2:] == ["prepare"]:
        prepare(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), *sys.argv[2:])
