"""Which axes are logarithmic."""

from collections.abc import Sequence
from typing import Any

import pytest

from pcr_plugin.plots.figures import style
from pcr_plugin.plots.figures.curves import scale_if_wide


def axis_of(*curves: Sequence[float]) -> Any:
    with style.settings():
        _, [axis] = style.panels(1, 1)
        for values in curves:
            axis.plot(range(len(values)), values)
        scale_if_wide(axis)
    return axis


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.5, 1.0, 49.0], "linear"),
        ([0.5, 1.0, 51.0], "log"),
        ([0.0, 1.0, 51.0], "linear"),  # 0 has no place on a logarithmic axis
        ([], "linear"),
    ],
)
def test_two_orders_of_magnitude_get_a_logarithmic_axis(values: list[float], scale: str) -> None:
    assert axis_of(values).get_yscale() == scale


def test_the_rounded_zero_of_the_first_step_does_not_decide() -> None:
    """The KL gradient is 0 where the policy is still the reference, and 1e-9 in float32."""
    steps = [0.1 + 0.01 * step for step in range(30)]
    assert axis_of([1e-9, *steps], [2e-9, *steps]).get_yscale() == "linear"


def test_what_lies_far_below_the_rest_is_cut_from_a_logarithmic_axis() -> None:
    rising = [0.01 * 1.3**step for step in range(30)]
    axis = axis_of([1e-9, *rising])
    assert axis.get_yscale() == "log"
    bottom, top = axis.get_ylim()
    assert 1e-5 < bottom < 0.01
    assert top > rising[-1]
