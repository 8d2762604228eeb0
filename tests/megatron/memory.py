"""How many bytes of tensors there are, whoever has them."""

import gc
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

_LOOKS, _BETWEEN_LOOKS = 4, 0.03  # seconds
# What moves gradients out of the buffers, and back.
_MOVES = ("take", "keep_rest", "finish_rest")


class Held:
    """Measures a step of an engine: `with Held(engine) as memory`.

    Attributes:
        most: the most bytes that tensors beside the buffers had at a time, of what moving gradients
            out of the buffers has made; 0 in a stock run.
        kept: bytes of all tensors after the step, less those before.
    """

    def __init__(self, engine: Any) -> None:
        self._gradients = getattr(engine, "_gradients", None)
        self._now = 0
        self.most = 0

    def __enter__(self) -> "Held":
        gc.collect()
        self._before = bytes_alive()
        for name in _MOVES if self._gradients is not None else ():
            setattr(self._gradients, name, self._measured(getattr(self._gradients, name)))
        return self

    def __exit__(self, *error: object) -> None:
        self.kept = self._settled() - self._before
        for name in _MOVES if self._gradients is not None else ():
            delattr(self._gradients, name)

    def _settled(self) -> int:
        """What stays. A thread of a collective may hold what it has sent for a little longer."""
        found = []
        for _ in range(_LOOKS):
            gc.collect()
            found.append(bytes_alive())
            time.sleep(_BETWEEN_LOOKS)
        return min(found)

    def _measured(self, move: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            gc.collect()  # what a pass has left in cycles must not be freed in between
            before = bytes_alive()
            result = move(*arguments)
            self._now += bytes_alive() - before
            self.most = max(self.most, self._now)
            return result

        return measured


def bytes_alive() -> int:
    """Bytes of the storages of all tensors that Python knows of."""
    found = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]
    storages = [tensor.untyped_storage() for tensor in found]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
