"""A fusion of Megatron-core that hides weight gradients, and that nobody has to ask for."""

import logging
from typing import Any

from pcr_plugin.config import UpdateRule
from pcr_plugin.verl.refusals_megatron import watches_micro_batches

logger = logging.getLogger(__name__)

FUSION = "gradient_accumulation_fusion"


def forgo_fusion(engine: Any, rule: UpdateRule) -> None:
    """Switch off the fused accumulation of weight gradients where they have to pass a hook.

    Megatron-Bridge, which veRL takes by default, switches it on wherever TransformerEngine or APEX
    can be imported; mbridge does not. An actor that asks for it by name has been refused.

    Args:
        engine: veRL's McoreEngineConfig, of this engine alone; its overrides are replaced.
        rule: the resolved rule.
    """
    fields = dict(engine.override_transformer_config or {})
    if not watches_micro_batches(rule) or fields.get(FUSION) is not None:
        return
    # veRL freezes its configuration.
    object.__setattr__(engine, "override_transformer_config", {**fields, FUSION: False})
    if not engine.vanilla_mbridge:
        logger.warning(
            "pcr-plugin: %s=False, so that weight gradients pass the hooks of "
            "pcr.variance.estimator=micro_batch",
            FUSION,
        )
