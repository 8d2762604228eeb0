"""A small study with known results: two rules, three betas, three seeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.plot_logs import PERPLEXITY, SCORE, configuration, write_run

BETAS = (0.01, 0.05, 0.25)
SEEDS = (1, 2, 3)
STEPS = 12


def score(rule: str | None, beta: float, seed: int) -> float:
    """The final score: best at the middle beta; the seeds are 0.02 apart."""
    best = 0.6 if rule == "pcr" else 0.5
    return best - 0.1 * (beta != BETAS[1]) + 0.02 * (seed - 2)


def perplexity(rule: str | None, beta: float) -> float:
    """The final one: less with more beta, and less by 1 under the rule."""
    return 12.0 - 2 * BETAS.index(beta) - (rule == "pcr")


def steps(
    rule: str | None, beta: float, seed: int, scope: str = "mlp"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """A run; validation before the first, after every fourth step."""
    for step in range(STEPS + 1):
        data: dict[str, Any] = {}
        if step % 4 == 0:
            share = step / STEPS
            data[SCORE] = 0.2 + (score(rule, beta, seed) - 0.2) * share
            data[PERPLEXITY] = 6.0 + (perplexity(rule, beta) - 6.0) * share
        if step:
            data |= {
                "actor/kl_loss": 0.01 * step,
                "actor/entropy": 2.0,
                "actor/grad_norm": 1.0 + 0.5 * (-1) ** step,
                "timing_s/step": 100.0 if step == 1 else 10.0 + (scope == "all"),
                "critic/rewards/mean": 0.3,
            }
        if step and rule:
            data |= _of_the_rule(step, scope)
        yield step, data


def _of_the_rule(step: int, scope: str) -> dict[str, Any]:
    parts = {"mlp": ("mlp",), "attention": ("self_attn",), "all": ("mlp", "self_attn")}[scope]
    data = {
        f"actor/pcr/{name}": value
        for name, value in {
            "alpha": 0.75,
            "beta_eff": 0.06,
            "conflict_rate": 0.5,
            "cos": -0.1,
            "cos_final_sta": 0.05,
            "norm_pla": 1.0,
            "norm_sta": 0.001 * step,
            "norm_final": 0.9,
        }.items()
    }
    for part in parts:
        for layer in (0, 1, 2):
            data[f"actor/pcr/block/{layer}.{part}/cos"] = 0.1 * (layer - 1)
            if layer == 0:
                data[f"actor/pcr/block/{layer}.{part}/alpha"] = 0.7 if part == "mlp" else 0.4
    return data


def write_study(folder: Path) -> Path:
    """Everything that the figures need."""
    for seed in SEEDS:
        for beta in BETAS:
            for rule in (None, "pcr"):
                write_run(
                    folder / f"{rule}-{beta}-{seed}",
                    steps(rule, beta, seed),
                    configuration(rule, beta=beta, seed=seed),
                )
        for scope in ("attention", "all"):
            write_run(
                folder / f"pcr-{scope}-{seed}",
                steps("pcr", 0.05, seed, scope),
                configuration("pcr", seed=seed, scope=scope),
            )
    for alpha in (0.2, 0.8):
        write_run(
            folder / f"soft-{alpha}",
            steps("soft", 0.05, 2),
            configuration("soft", seed=2, alpha=alpha),
        )
    write_run(folder / "fast", steps("pcr", 0.05, 2), configuration("pcr", rate=1e-5, seed=2))
    return folder
