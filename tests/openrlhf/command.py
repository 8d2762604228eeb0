"""OpenRLHF's command up to its training loop, under real Ray, with and without the flag.

`python -m tests.openrlhf.command <folder>`, in OpenRLHF's environment. The command's own parser,
checks, strategy, launcher and actors run; `train`, which would start vLLM, is replaced by one that
starts the policy's actors alone and trains them on a buffer.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.openrlhf import cpu

RANKS = 2
_BATCH = "mixed"


def _arguments(model: Path, *more: str) -> list[str]:
    return [
        *("train_ppo_ray", "--actor.model_name_or_path", str(model)),
        *("--actor.num_gpus_per_node", str(RANKS), "--ref.num_gpus_per_node", str(RANKS)),
        *("--reward.remote_url", "none", "--vllm.num_engines", "0", "--vllm.sync_backend", "gloo"),
        *("--algo.advantage.estimator", "reinforce", "--algo.kl.use_loss"),
        *("--algo.kl.estimator", "k2", "--ds.attn_implementation", "eager"),
        *("--train.batch_size", "12", "--train.micro_batch_size", "2"),
        *("--rollout.batch_size", "12", "--actor.adam.lr", "1e-3", *more),
    ]


def main(folder: Path) -> None:
    """Run the command twice and write down what was trained.

    Args:
        folder: with the inputs; for the results.
    """
    cpu.prepare_workers()
    import ray

    model = _with_tokenizer(folder)
    # The "GPUs" are Ray's bookkeeping: its actors ask for one each.
    ray.init(
        num_cpus=RANKS + 2,
        num_gpus=RANKS,
        include_dashboard=False,
        runtime_env={"worker_process_setup_hook": "tests.openrlhf.cpu.prepare_workers"},
    )
    try:
        found = {
            "rule": _run(folder, _arguments(model, "--actor.update_rule", "pcr")),
            "stock": _run(folder, _arguments(model)),
        }
        (folder / "found.json").write_text(json.dumps(found))
    finally:
        ray.shutdown()


def _with_tokenizer(folder: Path) -> Path:
    """The checkpoint with a tokenizer beside it, which OpenRLHF loads."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from tests.distributed.inputs import Inputs

    model = Inputs.load(folder).checkpoints["wide"]
    words = Tokenizer(models.WordLevel({str(n): n for n in range(53)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1").save_pretrained(model)
    return model


def _run(folder: Path, arguments: list[str]) -> list[dict[str, Any]]:
    """One run of the command; what every actor says of itself."""
    from pcr_plugin.openrlhf import __main__ as command

    found: list[dict[str, Any]] = []
    choose = command._choose_actor

    def chosen(parsed: Any) -> None:
        choose(parsed)
        own = sys.modules["__main__"]
        own.train = lambda args: found.extend(_train(args, own.PolicyModelActor, folder))  # type: ignore[attr-defined]

    command._choose_actor = chosen
    sys.argv = arguments
    try:
        command.main()
    finally:
        command._choose_actor = choose
    return found


def _train(args: Any, actor_class: Any, folder: Path) -> list[dict[str, Any]]:
    """The part of OpenRLHF's `train` that has to do with the actor."""
    import ray
    from openrlhf.trainer.ray.launcher import RayActorGroup
    from openrlhf.utils import get_strategy

    args.ckpt.path = str(folder / "checkpoint")
    actors = RayActorGroup(args.actor.num_nodes, args.actor.num_gpus_per_node, actor_class)
    model = args.actor.model_name_or_path
    ray.get(actors.async_init_model_from_pretrained(get_strategy(args), model, 4, None))
    calls = [
        actor.__ray_call__.remote(_fill_and_train, str(folder), rank, args.algo.kl.init_coef)
        for rank, actor in enumerate(actors._actor_handlers)
    ]
    found: list[dict[str, Any]] = ray.get(calls)
    for actor in actors._actor_handlers:
        ray.kill(actor)
    return found


def _fill_and_train(actor: Any, folder: str, rank: int, beta: float) -> dict[str, Any]:
    """In the actor's process: a buffer, then OpenRLHF's own `fit`."""
    from tests.distributed.inputs import Inputs
    from tests.openrlhf.running import experience

    trajectories = Inputs.load(Path(folder)).batches[_BATCH]
    each = len(trajectories) // RANKS
    rows = list(range(rank * each, (rank + 1) * each))
    actor.append(experience(trajectories, rows))
    status = actor.fit(beta)
    actor.save_checkpoint("one", {"steps": 1})
    return {
        "actor": f"{type(actor).__module__}.{type(actor).__qualname__}",
        "trainer": type(actor.trainer).__name__,
        "strategy": type(actor.trainer.strategy).__name__,
        "status": {name: float(value) for name, value in status.items()},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
