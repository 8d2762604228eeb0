"""The design: its bounds, its parts, and what a unit of the variance is."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from verl.utils import tensordict_utils
from verl.workers.engine.utils import prepare_micro_batches

from examples.study import design, jobs, recipe
from examples.study.engine.batch import columns
from examples.study.engine.sampling import Answer
from examples.study.recipe import Point, Sizes
from examples.study.rules import RULES
from examples.study.sampler import together
from examples.study.start import Start

CENTRE = design.CENTRE
ENGINE, FULL = design.engine().points, design.full().points


def test_runs_are_named_once_and_stay_within_their_bounds() -> None:
    for points in (ENGINE, FULL):
        names = [jobs.name_of(point) for point in points]
        assert len(set(names)) == len(names)
    assert Counter(point.seed for point in ENGINE) == {0: 53, 1: 50, 2: 50, 3: 50, 4: 50}
    assert len(FULL) == 24
    assert set(FULL) <= set(ENGINE), "what the full tier runs, the engine tier predicts"
    seeds = [point.seed for point in ENGINE]
    assert seeds == sorted(seeds), "whole seeds first"


def test_every_rule_is_run() -> None:
    used = {point.rule for point in (*ENGINE, *design.small().points)}
    assert used == RULES.keys()


def values(name: str, rule: str, **changes: Any) -> set[Any]:
    """Of one setting, of the last seed's runs that are the centre but for what is said."""
    like = replace(CENTRE, rule=rule, seed=4, **changes)
    found = ((getattr(point, name), point) for point in ENGINE)
    return {value for value, point in found if point == replace(like, **{name: value})}


def test_what_the_engine_tier_varies() -> None:
    betas = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0}
    assert values("beta", "stock") == betas
    assert values("beta", "stock", rate=1e-4) == {0.001, 0.01}
    assert values("beta", "stock", rate=4e-4) == {0.01, 0.1}
    assert values("beta", "stock", prompts=8) == {0.003, 0.01, 0.03, 0.1}
    for rule in ("pcgrad_floor", "paper", *design.CANDIDATES, "soft0.5_floor"):
        assert values("beta", rule) == {0.001, 0.01, 0.1}, rule
    for rule in ("pcgrad_floor", "paper", "pcr_relative_floor_ema", "soft0.5_floor"):
        assert values("rate", rule) == {2e-4, 4e-4}, rule
    for rule in ("pcgrad_floor", "pcr_relative_floor_ema"):
        assert values("scope", rule) == {"mlp", "attention", "all"}, rule
    for rule in ("pcgrad_floor", "pcr_relative_floor_ema", "soft0.5_floor"):
        assert values("beta", rule, prompts=8) == {0.01}, rule


def test_the_controls_lie_between_betas_of_stock() -> None:
    assert set(design.CONTROLS) < set(design.STOCK_BETAS)
    assert min(design.STOCK_BETAS) < min(design.CONTROLS)
    assert max(design.CONTROLS) < max(design.STOCK_BETAS)


def test_the_full_tier_is_measured_where_the_engine_tier_is() -> None:
    engine, full = design.ENGINE_SIZES, design.FULL_SIZES
    assert replace(full, steps=engine.steps) == engine
    assert full.steps % engine.measured_every == 0
    assert full.steps < engine.steps


def batch(prompts: int, answers: int) -> list[Answer]:
    """Answers to the questions in the order of `engine.run`, of different lengths."""
    return [
        Answer(
            row={"extra_info": {"index": prompt}},
            prompt=torch.tensor([prompt]),
            response=torch.arange(1 + (prompt + answer) % 5),
            score=float(answer == 0),
            right=0.0,
        )
        for prompt in range(prompts)
        for answer in range(answers)
    ]


@pytest.mark.parametrize(
    ("point", "sizes"),
    [
        (CENTRE, design.ENGINE_SIZES),
        (design.NOISY, design.ENGINE_SIZES),
        (CENTRE, design.FULL_SIZES),
        (design.small().points[0], design.small().sizes),
    ],
)
def test_a_unit_of_the_variance_is_whole_questions(
    point: Point, sizes: Sizes, tmp_path: Path
) -> None:
    """With veRL's own way from a batch to micro-batches, under the study's own configuration."""
    told = recipe.overrides(point, sizes, Start(tmp_path), tmp_path / "run")
    with initialize_config_module("verl.trainer.config", version_base=None):
        actor = compose("ppo_trainer", overrides=told).actor_rollout_ref.actor
    prompts = point.prompts or sizes.prompts
    data = columns(batch(prompts, sizes.answers))
    mini_batches = tensordict_utils.make_iterator(
        data,
        mini_batch_size=actor.ppo_mini_batch_size * sizes.answers,
        epochs=1,
        seed=actor.data_loader_seed,
        dataloader_kwargs={"shuffle": actor.shuffle},
    )
    seen: list[int] = []
    for mini_batch in mini_batches:
        settings = {
            "use_dynamic_bsz": actor.use_dynamic_bsz,
            "micro_batch_size_per_gpu": actor.ppo_micro_batch_size_per_gpu,
        }
        tensordict_utils.assign_non_tensor(mini_batch, **settings)
        units, _ = prepare_micro_batches(mini_batch)
        assert len(units) == sizes.micro_batches
        for unit in units:
            asked = Counter(int(each[0]) for each in unit["prompts"].unbind())
            assert set(asked.values()) == {sizes.answers}, "a question is in two units"
            seen += asked
    assert sorted(seen) == list(range(prompts))


def test_the_full_tier_puts_answers_to_a_question_together() -> None:
    keys = ["b_1_0", "a_0_0", "c_0_0", "b_0_0", "a_1_0", "c_1_0"]
    assert [keys[place] for place in together(keys)] == sorted(keys)
    # Nothing is lost or doubled where answers have several parts.
    keys = [f"{name}_{answer}_{part}" for part in (0, 1) for answer in (10, 2) for name in "yx"]
    assert sorted(together(keys)) == list(range(len(keys)))
    assert [keys[place][0] for place in together(keys)] == list("xxxxyyyy")
