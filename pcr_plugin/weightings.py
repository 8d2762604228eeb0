"""Weightings of TorchJD for two gradients; the one file that imports TorchJD.

Weights are those of p and of beta s. `Sum`, `PCGrad`, and the weightings with a preference
vector (`UPGrad`, `DualProj`, `AlignedMTL`), which get ones, combine the two losses as a sum: what
the host trains. `Mean`, `MGDA` and `IMTLG` keep TorchJD's normalisation: their weights add up
to 1, so a block in conflict gets a smaller gradient than p + beta s.
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.config.checks import reject

logger = logging.getLogger(__name__)

_SUFFIX = "Weighting"
_INSTALL = 'pip install "pcr-plugin[torchjd]"'


def load(name: str) -> Callable[[Tensor], Tensor]:
    """Build a weighting.

    Args:
        name: a class of `torchjd.aggregation`, with or without its ending `Weighting`.

    Returns:
        A function from (B, 2, 2) Gramians of (p, beta s), float64 on the CPU, B at least 1, to
        (B, 2) weights. It leaves torch's random stream as it was.

    Raises:
        ValueError: TorchJD or its solver is missing, the name is unknown, or the weighting needs
            what a run cannot give it.
    """
    value = "torchjd:" + name
    try:
        from torchjd import aggregation
    except ImportError as error:
        reject("update_rule", value, f"TorchJD is missing ({error}): {_INSTALL}")
    kinds = _kinds(aggregation)
    short = name.removesuffix(_SUFFIX)
    usable = [kind for kind in kinds if _obstacle(kind, kinds[kind]) is None]
    allowed = "use one of " + ", ".join("torchjd:" + kind for kind in usable)
    if short not in kinds:
        reject("update_rule", value, f"TorchJD has no {short}{_SUFFIX}; {allowed}")
    obstacle = _obstacle(short, kinds[short])
    if obstacle is not None:
        reject("update_rule", value, f"{obstacle}; {allowed}")
    try:
        weighting = kinds[short](**_arguments(kinds[short]))
    except ImportError as error:
        reject("update_rule", value, f"its solver is missing ({error}): {_INSTALL}")
    return lambda gramians: _weigh(weighting, gramians)


class UnitRows:
    """Projects on the dual cone of two gradients after scaling both to the norm 1.

    The cone does not depend on the norms, but TorchJD's solver does: it adds a fraction of the
    trace to the diagonal, 1e-4 by default, which is more than ||beta s||^2 at a usual beta and
    would switch the projection off; and it does nothing at all below a norm of 0.01.

    Args:
        projector: TorchJD's projector.
    """

    def __init__(self, projector: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._projector = projector

    def __call__(self, weights: Tensor, gramian: Tensor) -> Tensor:
        """Weights of the projection.

        Args:
            weights: (..., 2) of the vectors to project.
            gramian: (2, 2).
        """
        norms = gramian.diagonal().sqrt()
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        # Rounding can take the cosine of parallel gradients beyond 1; no solver takes that.
        cosines = (gramian / torch.outer(norms, norms)).clamp(-1, 1)
        return self._projector(weights * norms, cosines) / norms


def _kinds(aggregation: Any) -> dict[str, Any]:
    """Class by name without the ending; the base class, which has no name left, is not one."""
    names = [name.removesuffix(_SUFFIX) for name in aggregation.__all__ if name.endswith(_SUFFIX)]
    return {name: getattr(aggregation, name + _SUFFIX) for name in sorted(filter(None, names))}


def _obstacle(name: str, kind: Any) -> str | None:
    from torchjd import Stateful

    parameters = inspect.signature(kind).parameters.values()
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    if needed:
        return f"{name} cannot be built without arguments ({', '.join(needed)})"
    if issubclass(kind, Stateful):
        return f"{name} keeps a state between steps, which a resumed run would not have"
    if name == "Random":
        return "Random draws from the random stream of the training, which a rule must leave alone"
    return None


def _arguments(kind: Any) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters
    arguments: dict[str, Any] = {}
    if "pref_vector" in parameters:
        arguments["pref_vector"] = torch.ones(2, dtype=torch.float64)
    if "projector" in parameters:
        from torchjd.linalg import QuadprogProjector

        # Of unit rows in float64: enough for a positive definite matrix, too little to be seen.
        arguments["projector"] = UnitRows(QuadprogProjector(norm_eps=0.0, reg_eps=1e-12))
    return arguments


def _weigh(weighting: Callable[[Tensor], Tensor], gramians: Tensor) -> Tensor:
    # PCGrad draws an order in which to project, even of two.
    with torch.random.fork_rng(devices=[]):
        return torch.stack([_weights_of(weighting, gramian) for gramian in gramians])


def _weights_of(weighting: Callable[[Tensor], Tensor], gramian: Tensor) -> Tensor:
    """The weights, or NaN where the solver fails: other ranks wait for what this one computes."""
    try:
        return weighting(gramian)
    except Exception as error:
        logger.warning("%r failed on %s: %r", weighting, gramian.tolist(), error)
        return torch.full_like(gramian[0], torch.nan)
