"""The moving averages beside veRL's checkpoint, so that a resumed run goes on as it was."""

import json
import logging
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
    shards = [path.name for path in Path(folder).glob("*_world_size_*_rank_0.pt")]
    written = sorted({int(name.split("_world_size_")[1].split("_")[0]) for name in shards})
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
    path.write_text(json.dumps({"version": 1, "average": average.state_dict()}))


def load(average: VarianceAverage, folder: str) -> None:
    """Read the state; a checkpoint of a stock run has none, and the average then starts anew.

    Args:
        average: the moving averages, changed in place.
        folder: the checkpoint's folder.

    Raises:
        ValueError: the file is there but not readable.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        if average.decay > 0:
            logger.warning("no %s in the checkpoint: the averages of V start anew", FILE_NAME)
        return
    try:
        average.load_state_dict(json.loads(path.read_text())["average"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a state of pcr-plugin: {error!r}; delete it") from error
