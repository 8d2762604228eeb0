"""From names to blocks: what one inner product spans, and what the user is told of a bad scope."""

import pytest

from pcr_plugin.blocks import Block, partition

QWEN2 = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in range(3)
        for part in (
            "self_attn.q_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
            "input_layernorm",
        )
    ),
    "model.norm.weight",
    "lm_head.weight",
]


def names(blocks: tuple[Block, ...]) -> list[str]:
    return [block.name for block in blocks]


def test_a_module_block_is_a_whole_mlp() -> None:
    blocks = partition(QWEN2, "mlp")
    assert names(blocks) == [f"model.layers.{layer}.mlp" for layer in range(3)]
    for layer, block in enumerate(blocks):
        assert block.parameters == tuple(
            f"model.layers.{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
        )
        assert block.label == f"{layer}.mlp"


def test_members_differ_where_the_name_does_not() -> None:
    first = "model.layers.0.mlp"
    whole, part = (partition(QWEN2, scope)[0] for scope in ("mlp", (r"mlp\.down_proj",)))
    assert whole.name == part.name == first
    everything, mlps = (partition(QWEN2, scope, "global")[0] for scope in ("all", "mlp"))
    assert everything.name == mlps.name
    assert len({block.members for block in (whole, part, everything, mlps)}) == 4


def test_tensor_blocks() -> None:
    blocks = partition(QWEN2, "attention", "tensor")
    assert len(blocks) == 6
    assert blocks[0].name == "model.layers.0.self_attn.q_proj.weight"
    assert blocks[0].parameters == (blocks[0].name,)
    assert blocks[0].label == "0.self_attn.q_proj.weight"


@pytest.mark.parametrize("scope", ["mlp", "attention", "all", ("lm_head",)])
def test_a_global_block_holds_the_whole_scope(scope: str | tuple[str, ...]) -> None:
    (block,) = partition(QWEN2, scope, "global")
    members = [n for one in partition(QWEN2, scope, "tensor") for n in one.parameters]
    assert sorted(block.parameters) == sorted(members)
    assert block.label == "all"


@pytest.mark.parametrize("kind", ["module", "tensor", "global"])
@pytest.mark.parametrize("scope", ["mlp", "attention", "all", ("proj", "norm")])
def test_every_parameter_of_the_scope_is_in_one_block(
    kind: str, scope: str | tuple[str, ...]
) -> None:
    members = [n for block in partition(QWEN2, scope, kind) for n in block.parameters]
    assert len(members) == len(set(members))
    assert set(members) <= set(QWEN2)
    if scope == "all":
        assert set(members) == set(QWEN2)


def test_outside_mlp_and_attention_a_block_shares_the_parent_module() -> None:
    blocks = {block.name: block.parameters for block in partition(QWEN2, "all")}
    assert blocks["model.layers.1"] == ("model.layers.1.input_layernorm.weight",)
    assert blocks["model"] == ("model.embed_tokens.weight", "model.norm.weight")
    assert blocks["lm_head.weight"] == ("lm_head.weight",)
    assert blocks["model.layers.2.self_attn"] == (
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.2.self_attn.o_proj.weight",
    )


def test_patterns_are_searched_and_may_be_several() -> None:
    assert names(partition(QWEN2, (r"layers\.[12]\.mlp", "^lm_head"))) == [
        "model.layers.1.mlp",
        "model.layers.2.mlp",
        "lm_head.weight",
    ]


def test_blocks_come_in_the_order_of_the_model() -> None:
    """Layer 10 after layer 9, as no sort of strings would have it."""
    many = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(12)]
    assert [block.label for block in partition(many, "mlp")] == [f"{i}.mlp" for i in range(12)]


def test_all_experts_of_a_layer_are_one_block_without_the_router() -> None:
    moe = [
        f"model.layers.{layer}.mlp.{part}.weight"
        for layer in range(2)
        for part in ("gate", "experts.0.up_proj", "experts.1.up_proj", "shared_expert.up_proj")
    ]
    blocks = partition(moe, "mlp")
    assert names(blocks) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    for block in blocks:
        assert len(block.parameters) == 3
        assert not any(name.endswith("mlp.gate.weight") for name in block.parameters)


@pytest.mark.parametrize(
    "wrapper", ["_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"]
)
def test_wrappers_do_not_change_blocks(wrapper: str) -> None:
    """The names stay as the model spells them; block names and labels do not show the wrapper."""
    wrapped = [name.replace(".mlp.", f".{wrapper}.mlp.{wrapper}.") for name in QWEN2]
    wrapped = [f"{wrapper}.{name}" for name in wrapped]
    plain, inside = partition(QWEN2, "mlp"), partition(wrapped, "mlp")
    assert names(inside) == names(plain)
    assert [block.label for block in inside] == [block.label for block in plain]
    assert [block.members for block in inside] == [block.members for block in plain]
    assert all(name in wrapped for block in inside for name in block.parameters)


@pytest.mark.parametrize("scope", ["mlp", "attention", ("no_such_name",)])
def test_a_scope_that_matches_nothing_lists_the_names(scope: str | tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        partition(["encoder.weird.weight", "head.bias"], scope)
    message = str(caught.value)
    assert f"pcr.scope={scope!r}" in message
    assert "encoder.weird.weight, head.bias" in message


def test_a_kind_of_name_is_listed_once() -> None:
    """A model of experts has thousands, and every rank has the message."""
    names = [f"layers.{n}.experts.{m}.fc1.weight" for n in range(9) for m in range(64)]
    with pytest.raises(ValueError, match=r"they are: layers\.N\.experts\.N\.fc1\.weight$"):
        partition(names, ("no_such_name",))


def test_a_model_without_trainable_parameters() -> None:
    with pytest.raises(ValueError, match="they are: none"):
        partition([], "all")


def test_a_generator_of_names_is_enough() -> None:
    """`named_parameters()` can be read only once; the error message needs the names again."""
    assert len(partition((name for name in QWEN2), "mlp")) == 3
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        partition((name for name in QWEN2), ("no_such_name",))
