"""The moving averages beside veRL's checkpoint, so that a resumed run goes on as it was."""

import hashlib
import json
import logging
import re
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


def save(average: VarianceAverage, folder: str) -> None:
    """Write the state; to be called on one rank, since it is equal on all.

    Args:
        average: the moving averages.
        folder: the checkpoint's folder.
    """
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"version": 1, "belongs_to": _fingerprint(folder), "average": average.state_dict()}
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
    if owner is not None and owner[1] != _fingerprint(folder):
        logger.warning("%s is not of this checkpoint, which was written later", path)
        return None
    return text


def load(average: VarianceAverage, text: str | None, folder: str) -> None:
    """Take a state back; without one of this checkpoint the averages start anew.

    Args:
        average: the moving averages, changed in place.
        text: what `read` returned.
        folder: the checkpoint's folder, for messages.

    Raises:
        ValueError: it is not a state.
    """
    path = Path(folder) / FILE_NAME
    if text is None:
        if average.decay > 0:
            logger.warning("no %s: the averages of V start anew", path)
        return
    try:
        average.load_state_dict(json.loads(text)["average"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a state of pcr-plugin: {error!r}; delete it") from error


def _fingerprint(folder: str) -> str:
    """Of veRL's schedule and random state, which every checkpoint writes anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("extra_state_world_size_*_rank_0.pt")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
