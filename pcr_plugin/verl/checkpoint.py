"""The moving averages beside veRL's checkpoint, so that a resumed run goes on as it was."""

import json
import logging
from pathlib import Path

from pcr_plugin.statistics import VarianceAverage

logger = logging.getLogger(__name__)

FILE_NAME = "pcr_state.json"


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
