"""veRL's Megatron engine on the CPU, built by mbridge; on top of `tests.support.megatron_cpu`."""

import functools
import re
from collections.abc import Callable
from typing import Any

from tests.support.shims import Shim
from tests.support.shims import install as install_shims

# The two norms stand in modules of their own in a local layer, and inside of the linear modules in
# TransformerEngine's, the only names that mbridge knows.
_NORMS = {
    "input_layernorm": "model.layers.{layer}.input_layernorm.weight",
    "pre_mlp_layernorm": "model.layers.{layer}.post_attention_layernorm.weight",
}

_EXPERT = re.compile(r"local_experts\.(\d+)\.(linear_fc\d\.weight)")


def install() -> None:
    """Replace what the engine does only with a GPU.

    Raises:
        ImportError: a symbol is missing.
    """
    install_shims(SHIMS)
    _register_engine()
    _register_models()


def _register_engine() -> None:
    # The stock class is registered for accelerators only.
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead

    if "cpu" not in EngineRegistry._engines["language_model"]["megatron"]:
        EngineRegistry.register("language_model", "megatron", "cpu")(MegatronEngineWithLMHead)


def _register_models() -> None:
    from mbridge.core.bridge import _MODEL_REGISTRY

    import tests.support.module_list_moe
    import tests.support.multi_token

    # Qwen2-MoE with its experts one by one, as its checkpoints have them.
    _MODEL_REGISTRY[tests.support.module_list_moe.MODEL_TYPE] = _MODEL_REGISTRY["qwen2_moe"]
    tests.support.multi_token.register()


def _local_layers(original: Callable[..., Any]) -> Callable[..., Any]:
    # mbridge always asks for TransformerEngine's layers.
    def layers(self: Any, vp_stage: int | None = None) -> Any:
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

        self.has_vp_stage = True
        return get_gpt_decoder_block_spec(
            self.config, use_transformer_engine=False, vp_stage=vp_stage, normalization="RMSNorm"
        )

    return layers


def _local_names(original: Callable[..., Any]) -> Callable[..., Any]:
    # mbridge does not know the names of local layers' norms.
    def names(self: Any, name: str) -> list[str]:
        parts = name.split(".")
        if name.startswith("decoder.layers.") and parts[3] in _NORMS:
            return [_NORMS[parts[3]].format(layer=parts[2])]
        return original(self, name)  # type: ignore[no-any-return]

    return names


class _OfAnExpert(str):
    """A name that mbridge takes for an expert's, to cut it over the experts' own ranks."""

    def __contains__(self, part: object) -> bool:
        return part == ".mlp.experts.linear_fc" or super().__contains__(part)  # type: ignore[operator]


def _local_experts(original: Callable[..., Any]) -> Callable[..., Any]:
    # Without TransformerEngine every expert is a module of its own, counted on its rank. mbridge
    # knows one module with numbered weights.
    def names(self: Any, model: Any, consider_ep: bool = True) -> dict[str, str]:
        first = self.mpu.ep_rank * (self.config.num_moe_experts or 0) // self.mpu.ep_size

        def known(local: str) -> str:
            return _OfAnExpert(local) if _EXPERT.search(local) else local

        return {
            known(local): _EXPERT.sub(lambda found: f"{found[2]}{int(found[1]) + first}", name)
            for local, name in original(self, model, consider_ep=False).items()
            # Qwen2-MoE's checkpoints have none; it starts at zero.
            if not local.endswith("expert_bias")
        }

    return names


def _own_names(original: Callable[..., Any]) -> Callable[..., Any]:
    # For tied embeddings mbridge changes the table of its class, and with it all later models.
    def adjust(self: Any) -> None:
        self._DIRECT_MAPPING = dict(self._DIRECT_MAPPING)
        original(self)

    return adjust


def _seeded_tracker(original: Callable[..., Any]) -> Callable[..., Any]:
    # veRL does not seed Megatron-core's random states without an accelerator, and then no
    # parallel layer can be built.
    def seed_all(seed: int) -> None:
        from megatron.core import tensor_parallel

        original(seed)
        tensor_parallel.model_parallel_cuda_manual_seed(seed)

    return seed_all


def _causal_only(original: Callable[..., Any]) -> Callable[..., Any]:
    # veRL gives TransformerEngine's mask, (rows, tokens). Local attention wants another shape and
    # makes a causal one when it gets none; with padding on the right that says the same about every
    # token that counts.
    @functools.wraps(original)
    def forward(
        self: Any, q: Any, k: Any, v: Any, attention_mask: Any, *rest: Any, **o: Any
    ) -> Any:
        return original(self, q, k, v, None, *rest, **o)

    return forward


def _float32_allowed(original: Callable[..., Any]) -> Callable[..., Any]:
    # The engine computes in float32 as well; only its configuration refuses it.
    def check(self: Any) -> None:
        asked = self.dtype
        if asked == "float32":
            object.__setattr__(self, "dtype", "bfloat16")
        original(self)
        object.__setattr__(self, "dtype", asked)

    return check


SHIMS = (
    Shim(
        symbol="mbridge.core.bridge:Bridge._weight_name_mapping_mcore_local_to_global",
        replace=_local_experts,
    ),
    Shim(
        symbol="mbridge.models.qwen2:Qwen2Bridge._adjust_mapping_for_shared_weights",
        replace=_own_names,
    ),
    Shim(
        symbol="mbridge.core.llm_bridge:LLMBridge._get_transformer_layer_spec",
        replace=_local_layers,
    ),
    Shim(
        symbol="mbridge.core.llm_bridge:LLMBridge._weight_name_mapping_mcore_to_hf",
        replace=_local_names,
    ),
    Shim(
        symbol="verl.workers.engine.megatron.transformer_impl:set_random_seed",
        replace=_seeded_tracker,
    ),
    Shim(
        symbol="megatron.core.transformer.dot_product_attention:DotProductAttention.forward",
        replace=_causal_only,
    ),
    Shim(
        symbol="verl.workers.config.engine:McoreEngineConfig.__post_init__",
        replace=_float32_allowed,
    ),
)
