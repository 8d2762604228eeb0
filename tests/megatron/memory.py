"""How many bytes of tensors there are, whoever has them."""

import gc
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

_LOOKS, _BETWEEN_LOOKS = 8, 0.03  # seconds
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
        self._made: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __enter__(self) -> "Held":
        self._before = _settled(bytes_alive)
        for name in _MOVES if self._gradients is not None else ():
            setattr(self._gradients, name, self._measured(getattr(self._gradients, name)))
        return self

    def __exit__(self, *error: object) -> None:
        self.kept = _settled(bytes_alive) - self._before
        for name in _MOVES if self._gradients is not None else ():
            delattr(self._gradients, name)

    def _measured(self, move: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            before = storages_alive()
            result = move(*arguments)
            made = {ref: size for ref, size in storages_alive().items() if ref not in before}
            self._made |= made
            if self._bytes_made() > self.most:
                self.most = max(self.most, _settled(self._bytes_made))
            return result

        return measured

    def _bytes_made(self) -> int:
        """Of storages that moves have made and that are still there."""
        self._made = {ref: size for ref, size in self._made.items() if not ref.expired()}
        return sum(self._made.values())


def _settled(size: Callable[[], int]) -> int:
    """The least of some looks: a thread of a collective may hold what it has sent for longer."""
    found = []
    for _ in range(_LOOKS):
        gc.collect()
        found.append(size())
        time.sleep(_BETWEEN_LOOKS)
    return min(found)


def bytes_alive() -> int:
    """Bytes of the storages of all tensors that Python knows of."""
    return sum(storages_alive().values())


def storages_alive() -> dict[StorageWeakRef, int]:
    """The same, of every storage: its address is no other storage's while it is referred to."""
    found = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]
    storages = [tensor.untyped_storage() for tensor in found]
    return {StorageWeakRef(storage): storage.nbytes() for storage in storages}
