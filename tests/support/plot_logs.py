"""Logs as veRL's loggers write them, with chosen numbers."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

import yaml

SCORE = "val-core/toy/acc/mean@4"
PERPLEXITY = "demo/perplexity"
Steps = Iterable[tuple[int, Mapping[str, Any]]]


def write_json_lines(path: Path, steps: Steps) -> Path:
    """veRL's file logger, by its own library."""
    import orjson

    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        orjson.dumps({"step": s, "data": d}, option=orjson.OPT_SERIALIZE_NUMPY) for s, d in steps
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_events(folder: Path, steps: Steps) -> Path:
    """TensorBoard, by veRL's own adapter's calls."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step, data in steps:
        for key, value in data.items():
            writer.add_scalar(key, value, step)
    writer.close()
    return folder


def write_console(path: Path, steps: Steps, configuration: Mapping[str, Any] | None = None) -> Path:
    """What Ray shows of the trainer: veRL's own formatting, a prefix in colour, other lines."""
    from verl.utils.logger.aggregate_logger import concat_dict_to_str

    head = "\x1b[36m(TaskRunnerV1 pid=28020)\x1b[0m "
    other = "\x1b[36m(WorkerDict pid=7)\x1b[0m "
    lines = ["INFO: starting", f"{other}{{'not': 'the configuration'"]
    if configuration is not None:
        printed = pformat(configuration).splitlines()
        lines += [head + printed[0], f"{other}in between", *(head + line for line in printed[1:])]
    for step, data in steps:
        lines.append(f"Training Progress: 10%|#   | 1/10\r{head}{concat_dict_to_str(data, step)}")
        lines.append(f"{head}training/global_step:{step} - not a step's line:1.0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def configuration(
    rule: str | None = "pcr",
    *,
    beta: float = 0.05,
    rate: float = 1e-6,
    seed: int = 1,
    **pcr: Any,
) -> dict[str, Any]:
    """A part of what Hydra writes, with all keys that tell runs apart."""
    actor: dict[str, Any] = {
        "use_kl_loss": True,
        "kl_loss_coef": beta,
        "optim": {"lr": rate, "weight_decay": 0.01},
        "update_rule": rule,
        "pcr": {"preset": "paper", "scope": "mlp", "alpha": None, "log_blocks": True} | pcr,
        "data_loader_seed": 42,
    }
    return {
        "actor_rollout_ref": {"actor": actor, "model": {"path": "~/models/tiny"}},
        "data": {"seed": seed, "train_batch_size": 8},
        "trainer": {"project_name": "toy", "experiment_name": f"seed{seed}"},
    }


def write_hydra(folder: Path, values: Mapping[str, Any]) -> None:
    """`.hydra/config.yaml` as Hydra leaves it."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(values))))


def write_run(folder: Path, steps: Steps, values: Mapping[str, Any]) -> Path:
    """A run's folder: the file logger's log, and Hydra's configuration."""
    write_hydra(folder, values)
    write_json_lines(folder / "log.jsonl", steps)
    return folder
