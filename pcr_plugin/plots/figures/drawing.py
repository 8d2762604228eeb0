"""What every figure is: drawn, or missing with a reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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


def pages(items: Sequence[T], size: int) -> Iterator[tuple[str, str, list[T]]]:
    """At most `size` items each, with what a page's name and title end with if there are more."""
    rest = iter(items)
    number = 1
    count = -(-len(items) // size)
    while page := list(islice(rest, size)):
        several = count > 1
        yield f"-{number}" * several, f" ({number} of {count})" * several, page
        number += 1
