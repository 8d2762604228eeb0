"""Settings that a rule refuses: what is typed, what the message names, and what it advises."""

from tests.integration.recipes import ACTOR

RULE = f"{ACTOR}.update_rule=pcr"
PCR = f"{ACTOR}.pcr"
SPLIT_HALF = f"{PCR}.variance.estimator=split_half"
BY_ROWS = f"{PCR}.variance.estimator=sequence"
MEGATRON = ("model_engine=megatron", f"{ACTOR}.strategy=megatron")

# overrides -> (key=value as the message begins, words of what is allowed or helps)
REFUSED: list[tuple[list[str], str, list[str]]] = [
    # Parts of veRL that are not shown to be right.
    *(
        ([f"{ACTOR}.{key}=True"], f"{ACTOR}.{key}=True", [remedy])
        for key, remedy in (
            ("use_fused_kernels", "false"),
            ("use_prefix_grouper", "false"),
            ("qat.enable", "not supported"),
            ("fsdp_config.qat.enable", "not supported"),
        )
    ),
    (
        ["actor_rollout_ref.model.use_fused_kernels=True"],
        "use_fused_kernels=True",
        ["set it to false"],
    ),
    # Layouts.
    (
        [
            f"{ACTOR}.ulysses_sequence_parallel_size=2",
            "actor_rollout_ref.model.use_remove_padding=True",
        ],
        f"{ACTOR}.ulysses_sequence_parallel_size=2",
        ["split_half", "set it to 1"],
    ),
    (
        [f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=2"],
        f"{ACTOR}.ulysses_sequence_parallel_size=2",
        ["split_half", "set it to 1"],
    ),
    *(
        (
            [*ranks, f"{ACTOR}.strategy=fsdp", f"{ACTOR}.fsdp_config.fsdp_size=1"],
            f"{ACTOR}.fsdp_config.fsdp_size=1",
            ["use -1", "strategy=fsdp2"],
        )
        for ranks in (["trainer.n_gpus_per_node=4"], ["trainer.nnodes=2"])
    ),
    # Backends.
    *(
        (
            ["model_engine=" + engine],
            f"{ACTOR}.strategy={engine!r}",
            ["shown to be right on this engine", "fsdp2 with model_engine=dp, megatron with model"],
        )
        for engine in ("veomni", "torchtitan")
    ),
    # Names of engines that veRL has no configuration of the actor for, of its next of kin, a typo.
    *(
        (
            [f"{ACTOR}.strategy={strategy}"],
            f"{ACTOR}.strategy={strategy!r}",
            ["shown to be right on this engine", "fsdp2 with model_engine=dp, megatron with model"],
        )
        for strategy in ("automodel", "fsdp_turbo", "mindspeed", "veomni", "torchtitan", "FSDP2")
    ),
    # One half of a choice that takes two keys.
    (
        [f"{ACTOR}.strategy=megatron", f"{ACTOR}.use_dynamic_bsz=True"],
        f"{ACTOR}.strategy='megatron'",
        ["model_engine=dp has no such engine", "use model_engine=megatron"],
    ),
    *(
        (
            ["model_engine=megatron", f"{ACTOR}.strategy={strategy}"],
            f"{ACTOR}.strategy={strategy!r}",
            ["model_engine=megatron trains with Megatron-core", "use megatron"],
        )
        for strategy in ("fsdp2", "veomni")
    ),
    # Megatron.
    (
        [*MEGATRON, f"{ACTOR}.megatron.use_megatron_fsdp=True"],
        f"{ACTOR}.megatron.use_megatron_fsdp=True",
        ["buffers of another kind", "set it to False"],
    ),
    (
        [
            *MEGATRON,
            f"{ACTOR}.megatron.dynamic_context_parallel=True",
            f"{ACTOR}.megatron.max_seqlen_per_dp_cp_rank=512",
        ],
        f"{ACTOR}.megatron.dynamic_context_parallel=True",
        ["set it to False"],
    ),
    (
        [*MEGATRON, f"{ACTOR}.megatron.context_parallel_size=2"],
        f"{ACTOR}.megatron.context_parallel_size=2",
        ["slice of the tokens", "use sequence or split_half", "set it to 1"],
    ),
    (
        [*MEGATRON, "actor_rollout_ref.model.lora.rank=8"],
        "actor_rollout_ref.model.lora.rank=8",
        ["through Megatron-Bridge alone", "use 0", "an FSDP engine"],
    ),
    (
        [*MEGATRON, "actor_rollout_ref.model.lora_rank=8"],
        "actor_rollout_ref.model.lora_rank=8",
        ["would train the whole model", "use 0"],
    ),
    (
        [*MEGATRON, f"{ACTOR}.megatron.qat.enable=True"],
        f"{ACTOR}.megatron.qat.enable=True",
        ["not supported"],
    ),
    (
        [
            *MEGATRON,
            "trainer.n_gpus_per_node=4",
            f"{ACTOR}.megatron.tensor_model_parallel_size=4",
            f"{ACTOR}.megatron.expert_tensor_parallel_size=1",
            f"{ACTOR}.megatron.expert_model_parallel_size=2",
        ],
        f"{ACTOR}.megatron.expert_model_parallel_size=2",
        ["slice of the tokens", "split_half"],
    ),
    # What the worker would find in the built model, told before it starts.
    *(
        (
            [*MEGATRON, f"+{ACTOR}.megatron.{field}={value}"],
            f"{ACTOR}.megatron.{field}={value!r}",
            [remedy],
        )
        for field, value, remedy in (
            ("override_transformer_config.calculate_per_token_loss", True, "set it to False"),
            ("override_transformer_config.gradient_accumulation_fusion", True, "or split_half"),
            ("override_transformer_config.enable_cuda_graph", True, "set it to False"),
            ("override_transformer_config.external_cuda_graph", True, "set it to False"),
            ("override_transformer_config.cuda_graph_impl", "local", "set it to none"),
            ("override_transformer_config.dsa_indexer_loss_coeff", 0.1, "set it to 0"),
            ("override_ddp_config.num_distributed_optimizer_instances", 2, "use 1"),
            ("override_ddp_config.reuse_grad_buf_for_mxfp8_param_ag", True, "use False"),
        )
    ),
    # Rules and their keys.
    (
        [f"{ACTOR}.update_rule=pcrr"],
        "update_rule='pcrr'",
        ["null, pcr, pcgrad, soft, sum, observe"],
    ),
    ([f"{ACTOR}.update_rule=true"], "update_rule=True", ["null, pcr, pcgrad"]),
    (
        [f"{ACTOR}.update_rule=torchjd:UPgrad"],
        "update_rule='torchjd:UPgrad'",
        ["no UPgradWeighting", "torchjd:MGDA", "torchjd:UPGrad"],
    ),
    *(
        ([f"{ACTOR}.update_rule=torchjd:{name}"], f"update_rule='torchjd:{name}'", [reason])
        for name, reason in (
            ("CAGrad", "without arguments (c)"),
            ("GradVac", "keeps a state"),
            ("Random", "random stream"),
        )
    ),
    ([f"{ACTOR}.update_rule='torchjd:'"], "update_rule='torchjd:'", ["torchjd:<Weighting>"]),
    ([f"{ACTOR}.update_rule=soft"], "pcr.alpha=None", ["soft", "[0, 1]"]),
    ([f"{PCR}.alpha=0.5"], "pcr.alpha=0.5", ["only update_rule=soft"]),
    ([f"{PCR}.alpha=1.5"], "pcr.alpha=1.5", ["[0, 1]"]),
    ([f"{PCR}.preset=robuster"], "pcr.preset='robuster'", ["paper, robust"]),
    ([f"{PCR}.scope=mlps"], "pcr.scope='mlps'", ["mlp, attention, all"]),
    ([f"{PCR}.scope=['(']"], "pcr.scope='('", ["regular expression"]),
    ([f"{PCR}.block=layer"], "pcr.block='layer'", ["module, tensor, global"]),
    ([f"{PCR}.variance.estimator=none"], "pcr.variance.estimator='none'", ["micro_batch"]),
    (
        [f"{PCR}.variance.estimator=sequence", f"{PCR}.variance.probes=0"],
        "pcr.variance.probes=0",
        ["at least 1"],
    ),
    ([f"{PCR}.variance.scale=log"], "pcr.variance.scale='log'", ["absolute, relative, beta"]),
    ([f"{PCR}.variance.ema=1"], "pcr.variance.ema=1", ["[0, 1)"]),
    ([f"{PCR}.variance.probes=4"], "pcr.variance.probes=4", ["sequence"]),
    ([f"{PCR}.stability_floor=1"], "pcr.stability_floor=1", ["true or false"]),
    ([f"{PCR}.gate=maybe"], "pcr.gate='maybe'", ["true or false"]),
    ([f"{PCR}.min_cosine=-1"], "pcr.min_cosine=-1", ["[0, 1]"]),
    ([f"{PCR}.passes=one"], "pcr.passes='one'", ["auto, two_forward"]),
    ([f"{PCR}.combine_signals=1"], "pcr.combine_signals=1", ["true or false"]),
    ([f"{PCR}.zero_advantage=drop"], "pcr.zero_advantage='drop'", ["skip, group, run"]),
    # Sorted rows are no micro-batches like the others; or nothing is skipped that way.
    *(
        ([f"{PCR}.zero_advantage=group", *overrides], "pcr.zero_advantage='group'", reasons)
        for overrides, reasons in (
            ([], ["pcr.variance.estimator=sequence or split_half"]),
            ([BY_ROWS, f"{PCR}.passes=two_forward"], ["pcr.passes=two_forward runs every"]),
            ([BY_ROWS, f"{PCR}.combine_signals=true"], ["pcr.combine_signals=true runs every"]),
            ([BY_ROWS, f"{ACTOR}.use_dynamic_bsz=True"], [f"{ACTOR}.use_dynamic_bsz=True"]),
            ([BY_ROWS, f"{ACTOR}.strategy=fsdp"], [f"{ACTOR}.strategy=fsdp, and", "use pcr.zero"]),
        )
    ),
    ([f"{PCR}.share_recomputation=1"], "pcr.share_recomputation=1", ["true or false"]),
    # Where one forward pass is not shown to be enough.
    *(
        (
            [f"{PCR}.passes=shared_forward", *overrides],
            "pcr.passes='shared_forward'",
            [reason, "use pcr.passes=auto or two_forward"],
        )
        for overrides, reason in (
            ([f"{ACTOR}.strategy=fsdp"], f"{ACTOR}.strategy=fsdp, and"),
            (MEGATRON, f"{ACTOR}.strategy=megatron, and"),
            (["actor_rollout_ref.model.use_liger=True"], "model.use_liger=True, and"),
            (
                ["actor_rollout_ref.model.enable_activation_offload=True"],
                "model.enable_activation_offload=True, and",
            ),
        )
    ),
    ([f"{PCR}.log_blocks=yes please"], "pcr.log_blocks='yes please'", ["true or false"]),
    ([f"{PCR}.observe_every=0"], "pcr.observe_every=0", ["at least 1"]),
    ([f"{PCR}=robust"], "pcr='robust'", ["preset, scope, block"]),
    ([f"{PCR}.variance=split_half"], "pcr.variance='split_half'", ["estimator, scale"]),
]
