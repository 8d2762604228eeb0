"""How FSDP and the model are laid out, where it is not one shard per rank of a plain model."""

from dataclasses import replace
from functools import partial

from tests.distributed.recipe import Recipe

# One step that moves the weights, so that replicas could drift apart.
_step = partial(Recipe, learning_rate=1e-2)

# FSDP1: flat parameters (veRL's default), and flat ones behind the original ones.
ORIGINAL_PARAMETERS = ("use_orig_params", True)
FLAT = _step(name="flat", strategy="fsdp")
ORIGINAL = _step(name="original", strategy="fsdp", engine=(ORIGINAL_PARAMETERS,))
# Two replicas of two shards; two replicas of everything.
_REPLICAS = ("fsdp_size", 2)
HYBRID = (
    _step(name="hybrid", batches=("sixteen",), engine=(_REPLICAS,)),
    _step(name="hybrid_flat", batches=("sixteen",), strategy="fsdp", engine=(_REPLICAS,)),
    _step(
        name="hybrid_original",
        batches=("sixteen",),
        strategy="fsdp",
        engine=(_REPLICAS, ORIGINAL_PARAMETERS),
    ),
)
# Two ranks share the tokens of the same rows.
ULYSSES = tuple(
    _step(
        name=name,
        strategy=strategy,
        remove_padding=True,
        engine=(("ulysses_sequence_parallel_size", 2),),
    )
    for name, strategy in (("ulysses", "fsdp2"), ("ulysses_flat", "fsdp"))
)
_OFFLOADS = (("param_offload", True), ("optimizer_offload", True))
OFFLOADED = (
    _step(name="offloaded", engine=_OFFLOADS),
    _step(name="offloaded_flat", strategy="fsdp", engine=_OFFLOADS),
    _step(name="offloaded_original", strategy="fsdp", engine=(*_OFFLOADS, ORIGINAL_PARAMETERS)),
    _step(name="offload_policy", engine=(("offload_policy", True),)),
)
# One shard: every rank has everything, as with DDP.
REPLICATED = _step(name="replicated", engine=(("fsdp_size", 1),))
# Other kinds of model, each under FSDP2 and with flat parameters.
KINDS = tuple(
    _step(
        name=f"{model}{suffix}",
        model=model,
        batches=(model,),
        strategy=strategy,
        checkpointing=model.startswith("moe"),
    )
    for model in ("tied", "lora", "moe_fused", "moe_list")
    for strategy, suffix in (("fsdp2", ""), ("fsdp", "_flat"))
)
LORA = next(recipe for recipe in KINDS if recipe.name == "lora")
LORA_ORIGINAL = _step(
    name="lora_original",
    model="lora",
    batches=("lora",),
    strategy="fsdp",
    engine=(ORIGINAL_PARAMETERS,),
)
# Further varieties of flat parameters, and passes in half precision.
FLAT_VARIETIES = (
    Recipe(name="flat_eager", strategy="fsdp", defer_sync=False, reshard=False),
    Recipe(
        name="original_eager",
        strategy="fsdp",
        defer_sync=False,
        reshard=False,
        engine=(ORIGINAL_PARAMETERS,),
    ),
    Recipe(name="flat_checkpointed", strategy="fsdp", checkpointing=True),
    Recipe(
        name="flat_packed",
        strategy="fsdp",
        remove_padding=True,
        micro_batches=None,
        token_budget=25,
    ),
)
HALF = (
    Recipe(name="bfloat16", precision="bf16"),
    Recipe(name="bfloat16_flat", strategy="fsdp", precision="bf16"),
    Recipe(
        name="bfloat16_original", strategy="fsdp", precision="bf16", engine=(ORIGINAL_PARAMETERS,)
    ),
    Recipe(name="float16", precision="fp16"),
    Recipe(name="float16_flat", strategy="fsdp", precision="fp16"),
)
# Most answers are as good as the others to their prompt.
FEW = Recipe(name="few", batches=("few_advantages",), learning_rate=1e-2)
FEW_VARIETIES = tuple(
    replace(recipe, name=f"few_{recipe.name}", batches=FEW.batches)
    for recipe in (ULYSSES[0], OFFLOADED[-1], HALF[0])
)
# What is different about the engine or the model, with the numbers of ranks.
LAYOUTS = [
    *((recipe, 2) for recipe in (FLAT, ORIGINAL, *OFFLOADED, REPLICATED, *KINDS, LORA_ORIGINAL)),
    *((recipe, 4) for recipe in HYBRID),
    *((recipe, 2) for recipe in ULYSSES),
]
