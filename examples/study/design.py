"""What is run: named points, not the full product.

The numbers of this page were found by short runs, see `examples/study/README.md`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from examples.study.recipe import Point, Sizes
from examples.study.start import StartSettings
from pcr_plugin.demo.warm_start import Schedule

START = StartSettings()
ENGINE_SIZES = Sizes(steps=60, prompts=32, measured_every=20)
# A step of `main_ppo` takes longer; the other tier is measured at these steps, too.
FULL_SIZES = replace(ENGINE_SIZES, steps=20)
SEEDS = range(5)

# With half of it next to nothing is forgotten in so many steps; with more than twice as much p and
# s agree nearly always, for a step goes too far in what noise has moved, and both would undo it.
RATE = 2e-4
SLOW, FAST = RATE / 2, 2 * RATE
# Where beta is large, the floor makes every rule that has it stock.
CENTRE = Point(rule="stock", beta=0.01, rate=RATE)

# Dense enough to read between two of them what beta alone would have paid, see `fronts.py`.
STOCK_BETAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SLOW_BETAS = (0.001, 0.01)
FAST_BETAS = (0.01, 0.1)
# Those that are priced without themselves, as a control.
CONTROLS = (0.003, 0.01, 0.03, 0.1, 0.3)
BETAS = (0.001, 0.01, 0.1)

# The candidates for the preset `robust`: alpha from the noise over the signal, as it was found to
# help where much is known (docs/theory.md), and from V of beta s, which is nearly 1.
CANDIDATES = ("pcr_relative_floor_ema", "pcr_beta_floor_ema")
# What needs no variance: alpha 1, and one in the middle.
FIXED = ("pcgrad_floor", "soft0.5_floor")
FRONT = (FIXED[0], "paper", *CANDIDATES, FIXED[1])
# One choice of alpha at a time, around the rules of the front.
OTHER_RULES = (
    "pcgrad",
    "soft0.2_floor",
    "soft0.8_floor",
    "soft0.5",
    "pcr_absolute_floor_ema",
    "pcr_relative_floor",
    "pcr_relative_ema",
    "pcr_beta",
)
FAST_RULES = (FIXED[0], "paper", CANDIDATES[0], FIXED[1])
SCOPES = ("mlp", "attention", "all")
SCOPED = (FIXED[0], CANDIDATES[0])

# A quarter of the questions in a step, so that the gradients are noisier.
NOISY = replace(CENTRE, prompts=8)
NOISY_BETAS = (0.003, 0.01, 0.03, 0.1)
NOISY_RULES = (FIXED[0], CANDIDATES[0], FIXED[1])

# `main_ppo`: a whole grid of one seed, and the middle of it with another.
FULL_RULES = ("stock", FIXED[0], "paper", CANDIDATES[0])
FULL_BETAS = {0: (0.001, 0.01, 0.1, 1.0), 1: (0.01, 0.1)}


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
    """The wide grid: the fronts, and one factor at a time around its centre."""
    wanted = [
        *(
            replace(CENTRE, beta=beta, rate=rate)
            for rate, betas in ((RATE, STOCK_BETAS), (SLOW, SLOW_BETAS), (FAST, FAST_BETAS))
            for beta in betas
        ),
        *_each(FRONT, [replace(CENTRE, beta=beta) for beta in BETAS]),
        *_each(OTHER_RULES, [CENTRE]),
        *_each(FAST_RULES, [replace(CENTRE, rate=FAST)]),
        *_each(SCOPED, [replace(CENTRE, scope=scope) for scope in SCOPES]),
        *(replace(NOISY, beta=beta) for beta in NOISY_BETAS),
        *_each(NOISY_RULES, [NOISY]),
        # The stock update, measured: cosines and norms that a stock run does not have.
        *_each(["observe"], [replace(CENTRE, scope="all")]),
    ]
    points = [
        point
        for seed in SEEDS  # all of a seed first: what is there after an hour is a design, too
        # What the full tier runs, the engine tier predicts.
        for point in (*(replace(point, seed=seed) for point in wanted), *_full(seed))
    ]
    return Design(list(dict.fromkeys(points)), ENGINE_SIZES, START)


def full() -> Design:
    """At most 40 runs of `main_ppo`, of points that the engine tier has, too."""
    return Design([point for seed in FULL_BETAS for point in _full(seed)], FULL_SIZES, START)


def small() -> Design:
    """One pair of rules, to see in a minute that everything works; its numbers mean nothing."""
    schedule = Schedule(steps=150, text_rows=1, examples=24, learning_rate=6e-3)
    start = StartSettings(
        layers=2, width=64, heads=2, examples=600, prompts=64, tests=8, windows=2, schedule=schedule
    )
    sizes = Sizes(steps=4, prompts=8, answers=8, micro_batches=2, response=12, measured_every=2)
    points = [replace(CENTRE, rule=rule, scope="all") for rule in ("stock", "robust")]
    return Design(points, sizes, start)


def _full(seed: int) -> list[Point]:
    betas = FULL_BETAS.get(seed, ())
    return _each(FULL_RULES, [replace(CENTRE, beta=beta, seed=seed) for beta in betas])


def _each(rules: Sequence[str], points: Iterable[Point]) -> list[Point]:
    return [replace(point, rule=rule) for point in points for rule in rules]
