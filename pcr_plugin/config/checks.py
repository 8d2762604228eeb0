"""Range checks whose message names the key, the value and what is allowed."""

from collections.abc import Collection, Sequence
from typing import Any


class Refusal(ValueError):
    """A value that cannot be used; the message names key, value and what is allowed."""


def reject(key: str, value: Any, allowed: str) -> None:
    """Raise the error that every bad value gets.

    Args:
        key: the key as the user typed it, for example `pcr.gate`.
        value: what was given.
        allowed: the legal values, in words.

    Raises:
        Refusal: always.
    """
    raise Refusal(f"{key}={value!r} is not possible: {allowed}")


def one_of(key: str, value: Any, choices: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        reject(key, value, "one of " + ", ".join(choices))


def in_unit_interval(key: str, value: Any, *, below_one: bool = False) -> None:
    """Raise ValueError unless `value` is a number in [0, 1], or [0, 1) with `below_one`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0.0 <= value <= 1.0 or (below_one and value == 1.0):
        reject(key, value, f"a number in [0, 1{')' if below_one else ']'}")


def is_flag(key: str, value: Any) -> None:
    """Raise ValueError unless `value` is true or false."""
    if not isinstance(value, bool):
        reject(key, value, "true or false")


def positive_integer(key: str, value: Any) -> None:
    """Raise ValueError unless `value` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        reject(key, value, "an integer of at least 1")


def refuse_unread(names: Sequence[str], key: str = "pcr.variance.estimator") -> None:
    """Raise ValueError if there are parameters whose gradients random probes do not read.

    Args:
        names: of these parameters, the same on every rank.
        key: of the estimator, as the user types it.
    """
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        reject(
            key,
            "sequence",
            "it reads linear layers that get every token, with weights of their own, and the scope "
            f"has {shown}; narrow pcr.scope, or use split_half or micro_batch",
        )
