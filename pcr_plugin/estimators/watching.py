"""Which objective the gradients are of that hooks see."""

from collections.abc import Iterator
from contextlib import contextmanager

from pcr_plugin.estimators.base import Objective


class Watching:
    """Mixed into estimators with hooks, which stay on the model between steps."""

    _objective: Objective | None = None

    @contextmanager
    def watching(self, objective: Objective) -> Iterator[None]:
        """Around a backward pass of this objective, also inside of one of the other."""
        around, self._objective = self._objective, objective
        try:
            yield
        finally:
            self._objective = around
