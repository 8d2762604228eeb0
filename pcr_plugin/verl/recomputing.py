"""Whether both backward passes share the recomputations of a model, decided once a process."""

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from pcr_plugin.gradients import RandomState
from pcr_plugin.passes import SharedForward
from pcr_plugin.verl.fsdp2_shared import Fsdp2SharedGradients
from pcr_plugin.verl.layer_chain import LayerChain
from pcr_plugin.verl.one_recomputation import OneRecomputation

logger = logging.getLogger(__name__)


class Recomputing:
    """Of a model that is trained with one forward pass for both gradients.

    Args:
        module: the model after `fully_shard`.
        gradients: access to its gradients.
        asked: `pcr.share_recomputation`.
        generators: see `RandomState`.
        all_equal: whether a number is the same on all ranks of the model, which all call it.
        logs: whether this rank says what was decided.
    """

    def __init__(
        self,
        module: nn.Module,
        gradients: Fsdp2SharedGradients,
        *,
        asked: bool,
        generators: Any,
        all_equal: Callable[[int], bool],
        logs: bool,
    ) -> None:
        self._generators, self._all_equal, self._logs = generators, all_equal, logs
        self._chain = LayerChain(module, gradients.names)
        self._parts = [gradients.part_of(name) for name in self._chain.names]
        # `None` until the first micro-batch.
        self._shares: bool | None = None
        against = self._chain.reason_against() if asked else "as set"
        if against or not self._parts:
            self._decide(against)

    def look(self, forward: Callable[[], object]) -> None:
        """Before a micro-batch; the first one's forward pass shows whether layers are a chain.

        Args:
            forward: runs it, with gradients, and leaves nothing behind but the random state.
        """
        if self._shares is not None:
            return
        random_state = RandomState.capture(self._generators)
        against = self._chain.watch(forward)
        random_state.restore()
        if not self._all_equal(int(not against)):
            against = against or "they do not on another rank"
        self._decide(against)

    def of(self, passes: SharedForward) -> OneRecomputation | None:
        """What a micro-batch runs in, or `None` where each backward pass recomputes.

        Args:
            passes: of the step.
        """
        if not self._shares:
            return None
        return OneRecomputation(self._chain, self._parts, passes)

    def _decide(self, against: str) -> None:
        self._shares = bool(self._parts) and not against
        if self._parts and self._logs:
            how = f"for each signal ({against})" if against else "once for both signals"
            # Not less: at veRL's usual level nobody would see it.
            logger.warning("pcr-plugin: activations are recomputed %s", how)
