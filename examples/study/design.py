"""What is run: named points, not the full product.

The numbers of this page were found by short runs, see `examples/study/README.md`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from examples.study.recipe import Point, Sizes
from examples.study.rules import RULES
from examples.study.start import StartSettings
from pcr_plugin.demo.warm_start import Schedule

START = StartSettings()
# With a third of the questions the noise of the gradients decides what is forgotten, and the rules
# have little to do: p and s agree in most blocks and steps.
ENGINE_SIZES = Sizes(steps=30, prompts=96, measured_every=10)
# A step of `main_ppo` takes longer; the other tier is measured at these steps, too.
FULL_SIZES = replace(ENGINE_SIZES, steps=20)

# With half of it next to nothing is forgotten in so many steps.
RATE = 5e-4
BETAS = (0.001, 0.01, 0.1, 1.0)
CENTRE = Point(rule="stock", beta=0.1, rate=RATE)
SEEDS = range(5)

# The candidates for the preset `robust`: alpha from the noise over the signal, as it was found to
# help where much is known (docs/theory.md), and from V of beta s, which is nearly 1.
CANDIDATES = ("pcr_relative_floor_ema", "pcr_beta_floor_ema")
# Those that every question is asked about.
MAIN = ("stock", "pcgrad_floor", "paper", CANDIDATES[0])
# Fixed strengths between 0 and 1, to tell what the variances add to them.
HALF = "soft0.5_floor"
BESIDE = (CANDIDATES[1], HALF)
MIDDLE = (0.01, 0.1)
OTHER_RULES = tuple(
    name
    for name in RULES
    if name not in (*MAIN, "soft0.2_floor", "soft0.8_floor", "robust", "observe")
)
RATES = (RATE / 2, RATE)
SCOPES = ("mlp", "attention", "all")
PROJECTED = (MAIN[1], MAIN[3])  # the two whose scope is changed

# A sixth of the questions in a step, so that the gradients are noisier.
NOISY = replace(CENTRE, prompts=16)
NOISY_RULES = ("stock", "pcgrad_floor", CANDIDATES[0], HALF)

# `main_ppo`: a whole grid of one seed, and more seeds where rules differ.
FULL_BETAS = BETAS
FULL_MORE = {1: MIDDLE}


@dataclass(frozen=True)
class Design:
    """Runs of one tier.

    Attributes:
        points: each once.
        sizes: of every run.
        start: of every run.
    """

    points: list[Point]
    sizes: Sizes
    start: StartSettings


def engine() -> Design:
    """The wide grid: the front, and one factor at a time around its centre."""
    parts: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "front": [(rule, {"beta": beta}) for rule in MAIN for beta in BETAS],
        "beside it": [(rule, {"beta": beta}) for rule in BESIDE for beta in MIDDLE],
        "rules": [(rule, {}) for rule in OTHER_RULES],
        "learning rates": [(rule, {"rate": rate}) for rule in MAIN for rate in RATES],
        "scopes": [(rule, {"scope": scope}) for rule in PROJECTED for scope in SCOPES],
        "noise": [
            (rule, {"beta": beta, "prompts": NOISY.prompts})
            for rule in NOISY_RULES
            for beta in MIDDLE
        ],
        # The stock update, measured: cosines and norms that a stock run does not have.
        "observed": [("observe", {"scope": "all"})],
    }
    wanted = [
        replace(CENTRE, rule=rule, seed=seed, **changes)
        for seed in SEEDS  # all of a seed first: what is there after an hour is a design, too
        for part in parts.values()
        for rule, changes in part
    ]
    return Design(_once(wanted), ENGINE_SIZES, START)


def full() -> Design:
    """At most 40 runs of `main_ppo`, of points that the engine tier has, too."""
    wanted = [
        replace(CENTRE, rule=rule, beta=beta, seed=seed)
        for seed, betas in ({0: FULL_BETAS} | FULL_MORE).items()
        for beta in betas
        for rule in MAIN
    ]
    return Design(_once(wanted), FULL_SIZES, START)


def small() -> Design:
    """One pair of rules, to see in a minute that everything works; its numbers mean nothing."""
    schedule = Schedule(steps=150, text_rows=1, examples=24, learning_rate=6e-3)
    start = StartSettings(
        layers=2, width=64, heads=2, examples=600, prompts=64, tests=8, windows=2, schedule=schedule
    )
    sizes = Sizes(steps=4, prompts=8, answers=8, micro_batches=2, response=12, measured_every=2)
    points = [replace(CENTRE, rule=rule, scope="all") for rule in ("stock", "robust")]
    return Design(points, sizes, start)


def _once(points: Iterable[Point]) -> list[Point]:
    return list(dict.fromkeys(points))
