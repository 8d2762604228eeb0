"""Two gradients instead of one: where they are kept and how they become one again."""

from pcr_plugin.gradients.access import Gradients, Local, Part, Seen, SharedGradients
from pcr_plugin.gradients.combine import combine_
from pcr_plugin.gradients.in_scope import InScope, reporting
from pcr_plugin.gradients.linear_layers import LinearLayer, Side
from pcr_plugin.gradients.linear_modules import find_linear_layers
from pcr_plugin.gradients.random_state import RandomState

__all__ = [
    "Gradients",
    "InScope",
    "LinearLayer",
    "Local",
    "Part",
    "RandomState",
    "Seen",
    "SharedGradients",
    "Side",
    "combine_",
    "find_linear_layers",
    "reporting",
]
