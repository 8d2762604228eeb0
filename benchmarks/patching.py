"""Names replaced for a while, by what calls the original in a range of the profiler."""

from collections.abc import Callable, Iterator
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
