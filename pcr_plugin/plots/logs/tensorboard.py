"""TensorBoard's event files."""

from pathlib import Path

from pcr_plugin.plots.logs.log import Log


def is_event_file(path: Path) -> bool:
    """By TensorBoard's own naming."""
    return "tfevents" in path.name


def read(path: Path) -> Log:
    """All scalars.

    Args:
        path: an event file, or a folder whose event files are of one run (one per start).

    Raises:
        ImportError: the package tensorboard is missing; the message names the extra.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise ImportError(
            f'{path} needs the package tensorboard: pip install "pcr-plugin[plot]" ({error})'
        ) from error
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    log = Log()
    for key in events.Tags()["scalars"]:
        for event in events.Scalars(key):
            log.add(event.step, {key: event.value})
    return log
