"""What access to gradients has in common where every shard of a rank counts, or none does."""

from collections.abc import Callable, Sequence

from torch import Tensor

from pcr_plugin.gradients.access import Seen


class InScope:
    """Names and blocks of the scope: a part of `pcr_plugin.gradients.Gradients`.

    Args:
        trainable: names of all parameters that get a gradient, in the host's order.
        members: names of every block's parameters.
        counted: whether this rank's shards enter sums over all ranks.
    """

    def __init__(
        self, trainable: Sequence[str], members: Sequence[Sequence[str]], counted: bool
    ) -> None:
        owners = [(name, block) for block, names in enumerate(members) for name in names]
        self._names = [name for name, _ in owners]
        self._block_of = [block for _, block in owners]
        inside = set(self._names)
        self._names_of_rest = [name for name in trainable if name not in inside]
        self._counted = counted

    @property
    def names(self) -> Sequence[str]:
        """Name of every in-scope parameter."""
        return self._names

    @property
    def block_of(self) -> Sequence[int]:
        """Block of every in-scope parameter."""
        return self._block_of

    @property
    def counted(self) -> Sequence[bool]:
        """All or, in a replica of the model that is not the first, none."""
        return [self._counted] * len(self._block_of)


def reporting(index: int, seen: Seen) -> Callable[[Tensor], None]:
    """A hook for a tensor, which reports its gradients.

    Args:
        index: of the parameter in the scope.
        seen: gets the index and the gradient.
    """

    def report(gradient: Tensor) -> None:
        seen(index, gradient)

    return report
