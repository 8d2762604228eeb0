"""Numbers of rows, micro-batches and ranks that a rule refuses, as in `refused_settings`."""

from tests.integration.recipes import ACTOR
from tests.integration.refused_settings import MEGATRON, SPLIT_HALF

_DYNAMIC = f"{ACTOR}.use_dynamic_bsz=True"
_PACKED = "actor_rollout_ref.model.use_remove_padding=True"
_TENSOR = f"{ACTOR}.megatron.tensor_model_parallel_size"
_OVERRIDE = f"+{ACTOR}.megatron.override_transformer_config"
# Eight rows for the only replica: four micro-batches, two for each half.
VIRTUAL = (
    *MEGATRON,
    SPLIT_HALF,
    f"{ACTOR}.megatron.pipeline_model_parallel_size=2",
    f"{ACTOR}.megatron.virtual_pipeline_model_parallel_size=2",
)

REFUSED_SIZES: list[tuple[list[str], str, list[str]]] = [
    # Ranks that are left over, or too few.
    *(
        (
            [f"trainer.n_gpus_per_node={ranks}", *layout],
            f"trainer.n_gpus_per_node x trainer.nnodes={ranks}",
            [f"takes {needed} ranks", "a multiple of it"],
        )
        for ranks, needed, layout in (
            (2, 4, [SPLIT_HALF, f"{ACTOR}.ulysses_sequence_parallel_size=4", _PACKED]),
            (2, 4, [*MEGATRON, _DYNAMIC, f"{_TENSOR}=4"]),
            (3, 2, [*MEGATRON, _DYNAMIC, f"{_TENSOR}=2"]),
        )
    ),
    # Tensor-parallel ranks and pipeline stages work on the same rows: no more units for them.
    *(
        (
            [
                *MEGATRON,
                "trainer.n_gpus_per_node=4",
                f"{ACTOR}.megatron.tensor_model_parallel_size=2",
                f"{ACTOR}.megatron.pipeline_model_parallel_size=2",
                *halves,
                f"{ACTOR}.ppo_micro_batch_size_per_gpu=8",
            ],
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=8",
            ["8 sequences", "at most 4"],
        )
        for halves in ([], [SPLIT_HALF])
    ),
    # An expert gets the micro-batches of both ranks together.
    (
        [
            *MEGATRON,
            f"{ACTOR}.megatron.expert_model_parallel_size=2",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        ],
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        ["2 at a time in experts", "8 sequences", "at most 2"],
    ),
    (
        [
            *MEGATRON,
            "trainer.n_gpus_per_node=8",
            f"{ACTOR}.megatron.expert_model_parallel_size=8",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=1",
        ],
        f"{ACTOR}.ppo_mini_batch_size=4",
        ["8 at a time in experts", "8 sequences", "at least 16"],
    ),
    # A single unit has no spread.
    (
        [f"{ACTOR}.ppo_micro_batch_size_per_gpu=8"],
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=8",
        ["at most 4", "8 sequences"],
    ),
    (
        ["trainer.n_gpus_per_node=1", f"{ACTOR}.ppo_micro_batch_size_per_gpu=8"],
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=8",
        ["at most 4"],
    ),
    (
        [SPLIT_HALF, f"{ACTOR}.ppo_micro_batch_size_per_gpu=4"],
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        ["two micro-batches per rank", "at most 2"],
    ),
    (
        [SPLIT_HALF, f"{ACTOR}.update_rule=pcgrad", f"{ACTOR}.ppo_micro_batch_size_per_gpu=4"],
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        ["two micro-batches per rank"],
    ),
    (
        [SPLIT_HALF, f"{ACTOR}.use_dynamic_bsz=True", f"{ACTOR}.ppo_mini_batch_size=1"],
        f"{ACTOR}.ppo_mini_batch_size=1",
        ["split_half needs 2 sequences per rank", "leaves 1"],
    ),
    # The schedule of virtual stages takes as many micro-batches at a time as there are stages,
    # or as it is told to, and runs for each half alone.
    *(
        (
            [*VIRTUAL, *overrides],
            f"{ACTOR}.ppo_{key}",
            ["virtual stages", f"needs a multiple of {each} micro-batches", *more],
        )
        for overrides, key, each, more in (
            (
                [f"{ACTOR}.ppo_micro_batch_size_per_gpu=4"],
                "micro_batch_size_per_gpu=4",
                2,
                ["8 sequences", "makes a multiple of 4 micro-batches"],
            ),
            (
                [f"{_OVERRIDE}.microbatch_group_size_per_vp_stage=4"],
                "micro_batch_size_per_gpu=2",
                4,
                ["makes a multiple of 8 micro-batches"],
            ),
            (
                [_DYNAMIC, f"{ACTOR}.ppo_mini_batch_size=1"],
                "mini_batch_size=1",
                2,
                ["2 sequences", "at least 4 sequences per rank"],
            ),
        )
    ),
]
