"""alpha, beta_eff and how they spread over mini-batches, as the number of units grows.

python -m examples.uncertainty.notebook

In cells, as editors and jupytext read them. Writes outputs/uncertainty.png.
"""

# %% [markdown]
# A small Qwen2 has made some steps of GRPO. Of a pool of prompts, each with four answers, the
# gradients of the surrogate and of the KL are computed answer by answer. Mini-batches of a few
# prompts are then taken out of the pool, and the rule decides on each as it would in a run.

# %%
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot

from examples.uncertainty.policy import ANSWERS, BETA, answer, gradients, train
from examples.uncertainty.resampling import band, draw, mean_product, pool_of

POOL = 96
SIZES = (2, 4, 8, 16, 32)
DRAWS = 300

# %% [markdown]
# The policy, and two gradients of every answer on the MLP of each layer.

# %%
model, reference = train(seed=0, steps=10, prompts=32)
batch = answer(model, POOL, torch.Generator().manual_seed(1))
pools = {
    name: pool_of(p, s, ANSWERS) for name, (p, s) in gradients(model, reference, batch).items()
}
print(f"reward {batch.reward:.2f}, {POOL} prompts with {ANSWERS} answers, beta {BETA}")

# %% [markdown]
# The same mini-batches with two kinds of unit: a prompt with all its answers, and a single answer.
# Answers to one prompt are not independent, so the second kind sees too little variance, of s
# more than of p. More of them make it surer of an alpha that is too large.

# %%
UNITS = {"prompts": True, "answers": False}
found = {
    (name, unit): [draw(pool, size, DRAWS, BETA, whole=whole, seed=size) for size in SIZES]
    for name, pool in pools.items()
    for unit, whole in UNITS.items()
}
whole_pool = {
    name: draw(pool, POOL, 1, BETA, whole=True, seed=0).alpha.item() for name, pool in pools.items()
}
bands = {
    key: {
        "alpha": [band(d.alpha) for d in draws],
        "beta_eff": [band(d.beta_eff[d.conflict]) for d in draws],
    }
    for key, draws in found.items()
}
conflicts = {
    key: [d.conflict.double().mean().item() for d in draws] for key, draws in found.items()
}
shares = {name: [mean_product(pool, size)[1] for size in SIZES] for name, pool in pools.items()}
for name, of_sizes in shares.items():
    cells = [f"{size}: {100 * s:.0f} %" for size, s in zip(SIZES, of_sizes, strict=True)]
    print(f"{name}: part of the mean p.s from within prompts: " + ", ".join(cells))
print("| block | units | prompts | alpha: 10 %, median, 90 % | beta_eff | in conflict |")
print("|---|---|---|---|---|---|")
for (name, unit), values in bands.items():
    for i, size in enumerate(SIZES):
        cells = [" ".join(f"{x:.3f}" for x in values[key][i]) for key in ("alpha", "beta_eff")]
        share = f"{100 * conflicts[name, unit][i]:.0f} %"
        print(f"| {name} | {unit} | {size} | {cells[0]} | {cells[1]} | {share} |")

# %% [markdown]
# Lines are medians over mini-batches, bands hold 80 % of them; the dotted line is alpha of the
# whole pool. beta_eff is that of mini-batches in conflict. It falls as the mini-batch grows: with
# few prompts those in conflict are also those whose noise points that way, and products within a
# prompt add to p.s.

# %%
# Blue and vermilion can be told apart with any colour vision; so can the markers.
STYLES = {"prompts": ("#0072B2", "o", "-"), "answers": ("#D55E00", "s", "--")}
figure, axes = pyplot.subplots(
    3, len(pools), figsize=(9, 9), sharex=True, sharey="row", layout="constrained"
)
for column, name in enumerate(pools):
    for unit, (colour, marker, line) in STYLES.items():
        values = bands[name, unit]
        for panel, key in enumerate(("alpha", "beta_eff")):
            low, middle, high = ([quantiles[i] for quantiles in values[key]] for i in range(3))
            axis = axes[panel, column]
            axis.plot(SIZES, middle, line, color=colour, marker=marker, label=f"units: {unit}")
            axis.fill_between(SIZES, low, high, color=colour, alpha=0.25, linewidth=0)
    axes[0, column].axhline(whole_pool[name], color="black", linestyle=":", label="whole pool")
    axes[1, column].axhline(BETA, color="black", linestyle=":", label="beta")
    axes[2, column].plot(SIZES, conflicts[name, "prompts"], "o-", color="black")
    axes[2, column].set_ylim(0, 1.02)
    axes[2, column].set_xscale("log", base=2)
    axes[2, column].set_xticks(SIZES, [str(size) for size in SIZES])
    axes[2, column].set_xlabel(f"prompts in a mini-batch ({ANSWERS} answers to each)")
    axes[0, column].set_title(f"MLP of {name}")
for panel, label in enumerate(("alpha", "beta_eff in a conflict", "share in conflict")):
    axes[panel, 0].set_ylabel(label)
for panel in (0, 1):
    axes[panel, 0].legend()
path = Path("outputs/uncertainty.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=120)
pyplot.close(figure)
print(f"written: {path}")
