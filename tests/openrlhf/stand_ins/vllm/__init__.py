"""Stand-in: what OpenRLHF's modules import of vLLM, which generates; nothing here trains."""

from typing import Any

__version__ = "0.29.0"


class SamplingParams:
    """Parameters of a generation, which is not run."""

    def __init__(self, **_: Any) -> None:
        raise RuntimeError("generation needs vLLM")
