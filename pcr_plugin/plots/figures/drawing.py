"""What every figure is: drawn, or missing with a reason."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: of its files.
        title: with the number of the paper's figure, if it has one.
        caption: what is shown and how it was computed.
        figure: matplotlib's.
    """

    name: str
    title: str
    caption: str
    figure: Any


@dataclass(frozen=True)
class Missing:
    """A figure that these runs do not have.

    Attributes:
        title: as of the drawing.
        needs: metrics or settings that it would take.
    """

    title: str
    needs: str


def pages(
    items: Sequence[T], size: int, together: Callable[[T], object] = id
) -> Iterator[tuple[str, str, list[T]]]:
    """Cut a sequence into pages.

    Args:
        items: in order.
        size: most items of a page.
        together: neighbours for which this is equal stay on one page if they fit.

    Returns:
        What a page's name and title end with (nothing if there is one page), and its items.
    """
    filled: list[list[T]] = []
    for _, members in groupby(items, key=together):
        rest = list(members)
        if filled and len(filled[-1]) + len(rest) <= size:
            filled[-1] += rest
        else:
            filled += [rest[start : start + size] for start in range(0, len(rest), size)]
    several = len(filled) > 1
    for number, page in enumerate(filled, start=1):
        yield f"-{number}" * several, f" ({number} of {len(filled)})" * several, page
