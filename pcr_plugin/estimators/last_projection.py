"""The projection of a layer's input, for the next layer that reads the same tensor."""

import weakref

from torch import Tensor


class LastProjection:
    """Remembers one tensor, without keeping it alive."""

    def __init__(self) -> None:
        self._tensor: weakref.ref[Tensor] | None = None
        self._key: tuple[str | None, int] = (None, 0)
        self._projection: Tensor | None = None

    def keep(self, name: str | None, tensor: Tensor, projection: Tensor) -> None:
        """Remember what a tensor was projected to.

        Args:
            name: of the directions.
            tensor: a layer's input.
            projection: what `get` gives.
        """
        if name is not None:
            self._tensor, self._projection = weakref.ref(tensor), projection
            self._key = (name, tensor._version)

    def get(self, name: str | None, tensor: Tensor) -> Tensor | None:
        """The projection, if it was that of this very tensor, unchanged, in these directions."""
        same = self._tensor is not None and self._tensor() is tensor
        return self._projection if same and self._key == (name, tensor._version) else None
