"""Names replaced for a while, by what calls the original in a range of the profiler."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.profiler import record_function
from verl.utils.device import get_torch_device


def in_range(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does the same, in a range that ends when the device has done it.

    Args:
        name: of the range.
        original: the function.
    """

    def ranged(*arguments: Any, **named: Any) -> Any:
        with borders(name):
            return original(*arguments, **named)

    return ranged


@contextmanager
def borders(name: str) -> Iterator[None]:
    """A range at whose borders nothing is queued on the device.

    Args:
        name: of the range.
    """
    synchronize()
    with record_function(name):
        yield
        synchronize()


def synchronize() -> None:
    """Wait until the device has done everything."""
    getattr(get_torch_device(), "synchronize", lambda: None)()


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """An attribute of an object, replaced.

    Args:
        owner: has the attribute, itself or by its class.
        name: of the attribute.
        make: from the original to what takes its place.

    Raises:
        AttributeError: there is no such attribute, so the range would stay empty.
    """
    own = name in vars(owner)
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


class Switched:
    """A function that is called in a range while it is switched on.

    For hooks, which are registered once and cannot be replaced later.

    Args:
        name: of the range.
        original: the function.

    Attributes:
        on: whether there is a range.
    """

    def __init__(self, name: str, original: Callable[..., Any]) -> None:
        self._original, self._ranged = original, in_range(name, original)
        self.on = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        return (self._ranged if self.on else self._original)(*arguments, **named)


@contextmanager
def switched_on(found: Sequence[Switched]) -> Iterator[None]:
    """All of them on, then off.

    Args:
        found: the functions.
    """
    for one in found:
        one.on = True
    try:
        yield
    finally:
        for one in found:
            one.on = False
