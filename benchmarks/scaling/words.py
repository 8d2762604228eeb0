"""The sentences around the numbers of docs/scaling.md."""

PAGE = """# How it scales

Command: `{command}`

{date}, {machine}, {versions}.

## What is sent

A step of the rule adds to FSDP2's own communication:

- one all-reduce of a table with eleven float64 numbers per block, whatever the width of the model,
  the number of tokens and of micro-batches (`pcr.block=module`: a block is a layer's MLP);
- with `split_half` one more, of six numbers; with `sequence` two more, of K^2 numbers per linear
  layer of the scope (K = `pcr.variance.probes`, {probes} by default), one for either objective;
- with `pcr.passes=two_forward` all gathers and reductions of a second run over the mini-batch,
  which is what costs;
- with `pcr.passes=shared_forward` the gathers and reductions of a second backward pass in every
  micro-batch; with `pcr.combine_signals=true` it reduces s in the scope alone. And one
  all-reduce of two numbers: whether all ranks can. And, unless `pcr.zero_advantage=run` or
  `pcr.combine_signals=true`, one of one number in every micro-batch: whether its surrogate has a
  gradient on any rank.

Where `use_no_sync_for_gradient_accumulation=True` (off in a run, unless it is asked for) the stock
engine and two passes wait for the last micro-batch before they reduce ("deferred" below). A shared
forward pass does not wait; why `auto` takes it all the same is [below](#beyond-four-ranks).

{statistics}

Counted in updates of a model with two layers and two micro-batches, by intercepting every operator
of torch.distributed on the first rank, and compared with the formula
(`benchmarks/scaling/expected.py`) in number and size of every collective:

{counted}

## What is computed

Statistics and combination (`actor/pcr/seconds`, median) read every gradient in the scope once per
micro-batch and objective in hooks, and this rank's shards of both at the end. So they grow with the
parameters of the scope, and the second part reads less where more ranks share them, which the
seconds here do not show: the ranks share the cores of one machine, with one thread each, and the
first waits for the slowest.

{seconds}

## Beyond four ranks

Modelled, not measured: FSDP2 over all GPUs, {micro_batches} micro-batches, parameters gathered in
bf16, gradients reduced in float32. A collective takes a logarithmic number of steps of {inside} µs
inside a machine of eight GPUs and {between} µs between machines, and sends its bytes at
{bandwidth} GB/s per GPU inside a machine (NVLink 4, one direction) and {bandwidth_between} GB/s per
machine between them (eight adapters of 400 Gb/s). Nothing overlaps with computation or with other
collectives. These figures are data sheets', and the number of steps is the least there can be.

{modelled}

A second run over the mini-batch doubles the gathers and reductions, in bytes and in seconds. A
shared forward pass saves a gather of all parameters in every micro-batch, and combined most of the
second reduction outside the scope. (`combined` is that of the estimator `sequence`, without its
probes.)

{modelled_statistics}

The statistics are latency: they send next to nothing. Those of two passes come once a step, at its
end, where every rank waits; of the all-reduces of a shared forward pass one of a single number
comes in every micro-batch as well, which `pcr.zero_advantage=run` leaves out.

With `use_no_sync_for_gradient_accumulation=True`, seconds of communication; two passes also compute
a second forward pass of the mini-batch, which is nothing for no tokens and as long as what they
save in communication for the tokens in the last column (two operations per parameter and token at
{flops} TFLOP/s, assumed). With more tokens on a rank in a mini-batch a shared forward pass is
faster, with fewer two passes are, as far as nothing overlaps:

{modelled_deferred}

On one machine without a network between ranks the second forward pass is what counts:
[two](benchmarks_2_ranks.md) and [four ranks](benchmarks_4_ranks.md) of one CPU are faster with
`pcr.passes=shared_forward`, deferred or not.
"""
