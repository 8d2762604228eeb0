"""OpenRLHF's policy actor, without Ray: a step, a checkpoint, a step; then that step once more."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from pcr_plugin.openrlhf.worker import TwoGradientPolicyActor
from tests.distributed.inputs import Inputs
from tests.openrlhf.arguments import arguments
from tests.openrlhf.records import Record
from tests.openrlhf.running import TorchStrategy, experience, parameters, rows_of_rank
from tests.openrlhf.tokenizer import save_tokenizer

_MODEL = "wide"
_BATCHES = ("second", "mixed")
_BETA = 0.05
_RATE = 1e-3
_SETTINGS: dict[str, Any] = {
    "actor__gradient_checkpointing_enable": False,
    "actor__adam": SimpleNamespace(lr=_RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0),
    "actor__muon": SimpleNamespace(),
    "actor__lr_scheduler": "constant",
    "actor__lr_warmup_ratio": 0.0,
    "actor__min_lr_ratio": 0.1,
    "actor__max_norm": 1.0,
    "ckpt__save_hf": False,
    "ckpt__disable_ds": False,
    "ckpt__max_num": 3,
    "ckpt__max_mem": float("inf"),
    "data__disable_fast_tokenizer": False,
    "ds__attn_implementation": "eager",
    "ds__experts_implementation": None,
    "ds__enable_sleep": False,
    "ds__lora": SimpleNamespace(rank=0, alpha=16, target_modules="all-linear", dropout=0),
    "rollout__temperature": 1.0,
    "train__enable_ema": False,
    "train__ema_beta": 0.992,
}
_VARIANCE = SimpleNamespace(ema="0.9")
_RULES: dict[str | None, dict[str, Any]] = {
    None: {},
    "pcr": {"actor__update_rule": "pcr", "actor__pcr": SimpleNamespace(variance=_VARIANCE)},
    "observe": {
        "actor__update_rule": "observe",
        "actor__pcr": SimpleNamespace(observe_every="2"),
    },
}


def run(stage: int, inputs: Inputs, folder: Path) -> dict[str, Record]:
    """The second step without an interruption, from the checkpoint, and in other ways.

    Args:
        stage: of ZeRO.
        inputs: models and mini-batches.
        folder: for the checkpoints.

    Returns:
        `resumed<stage>-` and `whole`, `again`, `anew` (the averages forgotten), `on` and `observed`
        (from the checkpoint of a stock run) and `off` (a stock run from the checkpoint).
    """
    if dist.get_rank() == 0:
        save_tokenizer(inputs.checkpoints[_MODEL])
    dist.barrier()
    records = {}
    for name, saved, loaded, rule in (
        ("whole", "rule", None, "pcr"),
        ("again", None, "rule", "pcr"),
        ("anew", None, "rule", "pcr"),
        ("stock", "stock", None, None),
        ("on", None, "stock", "pcr"),
        ("observed", None, "stock", "observe"),
        ("off", None, "rule", None),
    ):
        actor = _actor(stage, inputs, folder / f"{stage}-{saved or loaded}", loaded, rule)
        if saved:
            _step(actor, inputs, _BATCHES[0])
            actor.save_checkpoint("one", {"global_step": 1})
        average = _average(actor)
        at_start = average.state_dict() if average else {}
        if name == "anew":
            average.load_state_dict({"version": 1, "members": {}, "sums": {}})
        records[f"resumed{stage}-{name}"] = _record(actor, inputs, at_start)
        actor.actor.model.destroy()
    return records


def _actor(stage: int, inputs: Inputs, folder: Path, loaded: str | None, rule: str | None) -> Any:
    args = arguments(
        **_SETTINGS,
        **_RULES[rule],
        ds__zero_stage=stage,
        ckpt__path=str(folder),
        ckpt__load_enable=loaded is not None,
    )
    strategy = TorchStrategy(
        seed=args.train.seed,
        micro_train_batch_size=args.train.micro_batch_size,
        train_batch_size=args.train.batch_size,
        zero_stage=stage,
        args=args,
    )
    strategy.plain = False
    kind: Any = TwoGradientPolicyActor if rule else TwoGradientPolicyActor.__base__
    actor = kind(dist.get_world_size(), dist.get_rank(), "127.0.0.1", "1")
    actor.init_model_from_pretrained(strategy, str(inputs.checkpoints[_MODEL]), 100)
    return actor


def _average(actor: Any) -> Any:
    step = getattr(actor.trainer, "two_gradients", None)
    return None if step is None else step.update.average


def _step(actor: Any, inputs: Inputs, batch: str) -> dict[str, float]:
    # The order of the rows is drawn, and OpenRLHF does not save the random state.
    torch.manual_seed(1 + dist.get_rank())
    trajectories = inputs.batches[batch]
    actor.append(experience(trajectories, rows_of_rank(len(trajectories))))
    status: dict[str, float] = actor.fit(_BETA)
    return status


def _record(actor: Any, inputs: Inputs, at_start: dict[str, Any]) -> Record:
    before = parameters(actor.actor)
    status = _step(actor, inputs, _BATCHES[1])
    kinds = [type(actor.trainer).__name__]
    return Record(before, parameters(actor.actor), [], status, _RATE, kinds, at_start)
