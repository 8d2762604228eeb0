"""What a graph needs to be run backward twice: kernels that leave alone what they have saved.

veRL asks flash-attn's cross-entropy to write its gradient over the logits. There is no setting for
it, so for the time of a forward pass the name is replaced by the same function without that.
Compiled functions reuse the memory of what they have saved, unless they are told before they are
compiled that they must not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from pcr_plugin.verl import host

_ENGINE, _LOG_PROBS = "verl.workers.engine.fsdp.transformer_impl", "logprobs_from_logits"


@contextmanager
def nothing_in_place() -> Iterator[None]:
    """In it, veRL's FSDP engine builds a graph whose backward pass does not destroy it."""
    module, stock = import_module(_ENGINE), host.name(_ENGINE, _LOG_PROBS)

    def kept(*positional: object, **named: object) -> object:
        return stock(*positional, **{**named, "inplace_backward": False})

    setattr(module, _LOG_PROBS, kept)
    try:
        yield
    finally:
        setattr(module, _LOG_PROBS, stock)


def keep_compiled_graphs() -> None:
    """Tell torch that what it compiles from now on in this process may be run backward twice."""
    from torch._functorch import config

    config.donated_buffer = False
