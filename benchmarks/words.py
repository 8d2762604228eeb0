"""The sentences around the numbers."""

from benchmarks.peers import DIFFERENCES as PEERS

__all__ = ["NOTES", "NO_GPU", "OBSERVED", "PAGE", "PEERS"]

PAGE = """# What it costs

Seconds and memory of one actor update (`train_batch` of veRL's real engine: zero, passes, clip,
step) of stock veRL and of each rule, interleaved in one process.

Command: `{command}`

{date}, {machine}, {versions}. {ranks} rank(s); medians of {repeats} updates of each kind (quartiles
in brackets). {model} of width {width}, {layers} layers, vocabulary {vocabulary}, {precision},
random weights; {sequences} sequences of {prompt} + at most {response} tokens in {micro_batches}
micro-batches per rank; activation checkpointing {checkpointing}. A table's title says what
differs, and its date or number of updates where that is another one.

Against stock: with quartiles in brackets, the median of the ratios within one repeat, in which
every kind of update runs once and another one begins; without them, of tables that were measured
before the times of all updates were kept, the ratio of the medians. So it is with what is saved,
and with the peers.

{limits}{verdict}{gains}{notes}{tables}
Statistics and combine: what `actor/pcr/seconds` measures: gradient norms in the hooks, inner
products, the all-reduce, the rule and the combination, as a share of the update. It depends on the
number of parameters in the scope and of micro-batches, not on the number of tokens, which the
passes depend on: with more tokens in a mini-batch it is less. Of several ranks it is the first
one's, and the all-reduce has it wait for the slowest.

Peak memory: the most bytes that torch's allocator has given out at a time during an update, beside
weights and optimizer, read in an update of its own that is not timed. Over stock, it is also given
in multiples of what this rank has of one gradient in the scope. `two_forward` keeps that one
(1.00), and with `deferred` the gradient outside the scope, too: it is there twice in the second
pass, as this rank's shard of the first one's, and in the unreduced sum of the micro-batches, which
a stock update then has. Nor is it less where the first micro-batch has the most tokens (`long`):
there stock has no gradient yet, and the second pass the whole of the first one's. `split_half`
also keeps the gradient of a half. Beside one gradient of the scope, `shared_forward` has the graph
of one micro-batch, which is not less with more ranks, as their shards are. Of several ranks it is
the first one's; a thread of gloo then frees some buffers unseen, so that every peak, stock's too,
may be too high by what the last column says.

The parts come from a profile of the same untimed update, of which there is one, so that their sum
differs from the median by what one update differs from another and by the profiler: `forward` has
the loss in it, `recomputation` is of activations inside a backward pass, `backward` beside those of
s and p is that of the surrogate down to the model's output (whether there is a gradient at all),
`statistics` are the estimator's hooks, wherever they run, inner products and the rule, and
`communication` is what the process waits for in collectives, the host's and ours.

{observed}{peers}{gpu}{links}"""

# A part of a layout's name, and what it means.
NOTES = {
    "passes": "`two_forward` and `shared_forward`: the rule `pcr` with that `pcr.passes`. "
    "In the first table, what passes alone would cost if a forward pass is one part, a backward "
    "pass two, and a recomputation one.",
    "checkpointing": "`recomputed twice`: `pcr.share_recomputation=false`.",
    "passes-estimators": "`combined`: `pcr.combine_signals=true`, weight gradients outside the "
    "scope are computed once; `backward of p` is then of p + beta s.",
    "peers": "`one block`: the rule `pcgrad` with `pcr.scope=all` and `pcr.block=global`, "
    "so that all parameters are one block as in the other libraries. `unsharded`: on the model as "
    "they have it, without FSDP, which they do not know; the same work on the same ground.",
    "peers-mlps": "`MLPs only`: the rule `pcgrad` in the paper's scope as one block, "
    "`pcr.scope=mlp`, and the same of the other libraries. `combined`: `pcr.combine_signals=true`.",
    "equal_lengths": "`equal_lengths`: no sequence is shorter than another.",
    "deferred": "`deferred`: `use_no_sync_for_gradient_accumulation=True`, gradients are reduced "
    "after the last micro-batch. veRL's runs have it false by default, and so has every other "
    "layout.",
    "without_advantage": "`half_without_advantage`: half of the sequences, drawn at random, have "
    "the advantage zero. `run`, `skip` and `group`: `pcr.zero_advantage`.",
    "lora": "`lora`: adapters of rank 32 on every linear layer, the only ones that are trained.",
    "experts": "`experts`: eight experts in every MLP, of which a token sees two, and a shared "
    "one, as fused tensors.",
    "tied": "`tied`: input and output embeddings are one tensor.",
    "offload": "`offload`: `param_offload` and `optimizer_offload`; `offload_policy`: FSDP2's own. "
    "On a CPU both sides are the same memory.",
    "ulysses": "`ulysses`: two ranks share the tokens of the same sequences, so the numbers of "
    "sequences are those of both; torch's attention is in place of the flash-attention kernel.",
    "hybrid": "`hybrid`: two replicas of two shards.",
    "megatron": "Megatron-core with its local layers and what the tests put in place of a GPU.",
}

OBSERVED = """`observe` measures with two extra passes and then runs the stock update; between
measurements (`pcr.observe_every`, 10 by default) its step is the stock step.

"""

# Whether there are no results of a GPU.
NO_GPU = {
    True: "On a GPU: no CUDA machine was at hand, so these rows are empty. "
    "`python -m benchmarks.actor_update --out docs --device cuda --model qwen2.5-0.5b`, and the "
    "same with `qwen2.5-1.5b`, fill them.\n\n",
    False: "On a GPU:\n\n",
}
