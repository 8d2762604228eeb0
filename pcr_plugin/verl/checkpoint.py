"""The moving averages beside veRL's checkpoint, so that a resumed run goes on as it was."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from pcr_plugin.statistics import VarianceAverage

logger = logging.getLogger(__name__)

FILE_NAME = "pcr_state.json"


def check_ranks(folder: str, ranks: int) -> None:
    """Refuse a checkpoint that veRL's shards make useless here, before a file is missing.

    Args:
        folder: the checkpoint's folder.
        ranks: number of ranks of this run.

    Raises:
        ValueError: it was written by another number of ranks.
    """
    names = " ".join(path.name for path in Path(folder).glob("*.pt"))
    written = sorted(set(map(int, re.findall(r"_world_size_(\d+)_rank_0\.pt\b", names))))
    if written and ranks not in written:
        raise ValueError(
            f"{folder} was written by {' or '.join(map(str, written))} ranks and this run has "
            f"{ranks}: veRL keeps one shard per rank. Resume with as many ranks, or merge the "
            "checkpoint (python -m verl.model_merger merge --backend fsdp --local_dir ...) and "
            "start from the merged model."
        )


def check_model_parallel(folder: str, sizes: Mapping[str, int]) -> None:
    """Refuse a checkpoint of Megatron-core whose random states are cut in another way.

    Args:
        folder: the checkpoint's folder.
        sizes: this run's, by the names of Megatron-core's TransformerConfig.

    Raises:
        ValueError: it was written with other sizes.
    """
    path = Path(folder) / "transformer_config.json"
    if not path.exists():
        return
    written = json.loads(path.read_text())
    other = {name: written[name] for name in sizes if written.get(name, sizes[name]) != sizes[name]}
    if other:
        named = " and ".join(f"{name}={size}" for name, size in other.items())
        here = " and ".join(str(sizes[name]) for name in other)
        raise ValueError(
            f"{folder} was written with {named} and this run has {here}: veRL keeps the random "
            "states (`extra`) by tensor- and pipeline-parallel ranks. Resume with the same sizes, "
            "or start from the model in the checkpoint's model/huggingface."
        )


def save(average: VarianceAverage, steps: int, folder: str, *, complete: bool = True) -> None:
    """Write the state; to be called on one rank, since it is equal on all.

    Args:
        average: the moving averages.
        steps: optimizer steps of the run, which seed random probes.
        folder: the checkpoint's folder.
        complete: whether veRL has written its part; otherwise (`async_save`) our file cannot say
            which checkpoint it belongs to.
    """
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = _fingerprint(folder) if complete else ""
    state = {"version": 1, "belongs_to": owner, "steps": steps}
    state["average"] = average.state_dict()
    # A run that is killed here leaves the old file or the new one, not half of one.
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(state))
    unfinished.replace(path)


def read(folder: str) -> str | None:
    """The state file's text; to be called on one rank, which may be the only one that has it.

    Args:
        folder: the checkpoint's folder.

    Returns:
        `None` without a file, as in a stock run's checkpoint, and with one that an earlier
        checkpoint has left in the same folder.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    text = path.read_text()
    owner = re.search(r'"belongs_to": "(\w*)"', text)
    if owner is not None and owner[1] and owner[1] != _fingerprint(folder):
        logger.warning("%s is not of this checkpoint, which was written later", path)
        return None
    return text


def load(average: VarianceAverage, text: str | None, folder: str) -> int:
    """Take a state back; without one of this checkpoint the averages start anew.

    Args:
        average: the moving averages, changed in place.
        text: what `read` returned.
        folder: the checkpoint's folder, for messages.

    Returns:
        Optimizer steps of the run that wrote it, 0 if that is not known.

    Raises:
        ValueError: it is not a state.
    """
    path = Path(folder) / FILE_NAME
    if text is None:
        if average.decay > 0:
            logger.warning("no %s: the averages of V start anew", path)
        return 0
    try:
        state = json.loads(text)
        average.load_state_dict(state["average"])
        return int(state.get("steps", 0))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a state of pcr-plugin: {error!r}; delete it") from error


def _fingerprint(folder: str) -> str:
    """Of veRL's schedule and random state, which every checkpoint writes anew."""
    digest = hashlib.sha256()
    # FSDP's, and what Megatron-core's first rank writes.
    for pattern in ("extra_state_world_size_*_rank_0.pt", "extra/dist_ckpt/__0_*.distcp"):
        for path in sorted(Path(folder).glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()
