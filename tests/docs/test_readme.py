"""README and docs say what is true: examples run, links lead somewhere, tests exist."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from tests.distributed.cases import CASES
from tests.distributed.variants import STOCK

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_change_to_a_recipe_stands_within_the_first_hundred_words() -> None:
    before = README[: README.index("```diff")]
    prose = re.sub(r"\$\$.*?\$\$", "", before, flags=re.DOTALL)
    assert len(prose.split()) <= 100


def test_the_command_composes_with_the_real_veRL() -> None:
    diff = re.search(r"```diff\n(.*?)```", README, re.DOTALL)
    assert diff is not None
    lines = [re.sub(r"^[+ ] ", "", line) for line in diff[1].splitlines()]
    command = "\n".join(lines[1:]).split("...")[0].replace("\\\n", " ")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        actor = compose("ppo_trainer", overrides=words[3:]).actor_rollout_ref.actor
    assert actor.update_rule == "pcr"
    assert actor._target_ == "pcr_plugin.verl.actor_config.PCRFSDPActorConfig"


def test_the_python_example_runs() -> None:
    from verl.workers.config import FSDPActorConfig, FSDPEngineConfig

    def make_actor_config() -> FSDPActorConfig:
        return FSDPActorConfig(
            strategy="fsdp",
            rollout_n=1,
            ppo_micro_batch_size_per_gpu=1,
            use_kl_loss=True,
            kl_loss_type="k3+",
            fsdp_config=FSDPEngineConfig(strategy="fsdp"),
        )

    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"make_actor_config": make_actor_config}
    exec(example, names)
    assert names["actor"].engine.update_rule.name == "pcr"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_and_named_tests_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = [t for t in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in t]
    missing = [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()]
    missing += [t for t in re.findall(r"`(tests/[\w/.]+)`", text) if not (ROOT / t).exists()]
    assert not missing


THEORY = (ROOT / "docs" / "theory.md").read_text()


def test_tests_named_on_the_page_on_theory_exist() -> None:
    named = re.findall(r"`(?:(tests/[\w/]+)/)?(test_\w+\.py)(?:::(\w+))?`", THEORY)
    assert len(named) > 25
    for folder, file, test in named:
        path = ROOT / (folder or "tests/unit/rules") / file
        assert path.exists(), path
        assert not test or f"def {test}(" in path.read_text(), test


SUPPORT = (ROOT / "docs" / "support.md").read_text()


def test_recipes_of_the_support_matrix_are_run() -> None:
    """Each under the stock engine, which is the measure, and under a rule."""
    named = {
        name
        for words in re.findall(r"recipes? ((?:`\w+`(?:, )?)+)", SUPPORT)
        for name in re.findall(r"`(\w+)`", words)
    }
    variants: dict[str, set[str]] = {}
    for case in CASES:
        variants.setdefault(case.recipe.name, set()).add(case.variant)
    assert len(named) > 20
    assert not named - variants.keys()
    assert not [name for name in named if not variants[name] - {STOCK}]


def test_every_row_of_the_support_matrix_has_a_status_and_a_test() -> None:
    rows = re.findall(r"^\| (?!\|)(.+?) \| (.+?) \|(.*)\|$", SUPPORT, re.MULTILINE)
    assert len(rows) > 25
    for what, status, test in rows:
        assert re.match("tested on CPU|built, not run|refused", status), what
        if status.startswith("tested"):
            assert "`tests/" in test or "recipe" in test, what
