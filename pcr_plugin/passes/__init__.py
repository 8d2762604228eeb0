"""How a step comes to its two gradients (`pcr.passes`)."""

from pcr_plugin.passes.in_turn import InTurn
from pcr_plugin.passes.pair import GradientPair, Passes
from pcr_plugin.passes.shared_forward import SharedForward
from pcr_plugin.passes.two_forward import TwoForward

__all__ = ["GradientPair", "InTurn", "Passes", "SharedForward", "TwoForward"]
