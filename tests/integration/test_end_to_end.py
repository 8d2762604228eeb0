"""The real `main_ppo` with one key added: Ray, FSDP2, reference policy, vLLM, weight sync."""

import os
from pathlib import Path

import pytest

from pcr_plugin.cli.main import main
from pcr_plugin.plots.logs import console, json_lines
from tests.integration.small_run import Run, run
from tests.support.copying import copy_source

ROOT = Path(__file__).parents[2]
ONE_KEY = "actor_rollout_ref.actor.update_rule=pcr"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pcr(folder: Path) -> Run:
    return run(folder, [ONE_KEY, "actor_rollout_ref.actor.pcr.log_blocks=true"])


def test_the_run_ends_well(pcr: Run) -> None:
    assert pcr.status == 0, pcr.output[-4000:]
    assert len(pcr.steps) == 2
    assert pcr.tracebacks() == []
    assert "ray init kwargs" in pcr.output  # whose absence test_never_silent.py looks for


def test_only_tracebacks_of_vllm_s_server_are_left_out() -> None:
    theirs = "(CPUvLLMServer pid=1) ERROR Traceback (most recent call last):"
    others = "(WorkerDict pid=2) Traceback (most recent call last):"
    assert Run(0, f"{theirs}\n{others}\nstep:1", []).tracebacks() == [others]


def test_active_is_one_in_every_logged_step(pcr: Run) -> None:
    assert [step["actor/pcr/active"] for step in pcr.steps] == [1.0, 1.0]


def test_the_resolved_rule_is_logged_at_the_start(pcr: Run) -> None:
    assert "update_rule=pcr preset=paper scope=mlp" in pcr.output
    assert "engine backend pcr:fsdp2" in pcr.output


def test_the_passes_that_auto_chose_are_logged(pcr: Run) -> None:
    assert "passes=auto" in pcr.output
    assert "passes=shared_forward (gradients outside the scope for both signals)" in pcr.output


def test_both_gradients_are_there_once_the_policy_has_moved(pcr: Run) -> None:
    """The second optimizer step is off the reference, so s is no longer zero."""
    last = pcr.steps[-1]
    assert last["actor/pcr/norm_pla"] > 0
    assert last["actor/pcr/norm_sta"] > 0
    assert last["actor/pcr/var_pla"] > 0
    assert last["actor/pcr/degenerate_blocks"] == 0
    assert -1 <= last["actor/pcr/cos"] <= 1
    assert 0 <= last["actor/pcr/conflict_rate"] <= 1


def test_effective_beta_follows_from_the_blocks(pcr: Run) -> None:
    for step in pcr.steps:
        blocks = [step[f"actor/pcr/block/{layer}.mlp/beta_eff"] for layer in (0, 1)]
        assert step["actor/pcr/beta_eff"] == pytest.approx(sum(blocks) / 2)


def test_stock_metrics_keep_their_names_and_meaning(pcr: Run) -> None:
    for step in pcr.steps:
        assert step["actor/kl_coef"] == 0.05
        assert step["actor/kl_loss"] > 0
        assert step["actor/loss"] == pytest.approx(
            step["actor/pg_loss"] + 0.05 * step["actor/kl_loss"], rel=1e-4, abs=1e-6
        )
        # The weights that vLLM samples from are the actor's: the update reached the rollout.
        assert step["training/rollout_actor_probs_pearson_corr"] > 0.99


def test_plot_reads_the_run_from_its_file_and_from_its_console(
    folder: Path, pcr: Run, tmp_path: Path
) -> None:
    file = json_lines.read(folder / "steps.jsonl")
    output = tmp_path / "console.txt"
    output.write_text(pcr.output)
    shown = console.read(output)
    assert list(file.steps) == [1, 2]
    # The trainer has a process of its own, whose last line may come too late to be passed on.
    assert list(shown.steps) in ([1], [1, 2])
    for step, found in shown.steps.items():
        values = file.steps[step]
        assert found.keys() == values.keys()
        # The file has what Python prints, but numbers of 32 bits with fewer digits.
        assert found == pytest.approx(values, rel=1e-6, nan_ok=True)
    printed = console.printed_configuration(output)
    assert printed is not None
    assert printed["actor_rollout_ref"]["actor"]["update_rule"] == "pcr"
    for number, path in enumerate([folder / "steps.jsonl", output]):
        report = tmp_path / str(number)
        assert main(["plot", str(path), "--out", str(report)]) == 0
        names = {each.stem for each in report.glob("*.png")}
        wanted = {"progress", "cosines", "gradient_norms", "final_cosine", "rule"}
        assert wanted <= names <= wanted | {"alphas"}  # alpha: if any block was in conflict
        content = (report / "report.html").read_text()
        assert "<code>actor_rollout_ref.actor.update_rule</code></td><td>pcr</td>" in content
        assert "<td>0.05</td>" in content


def test_a_plugin_that_is_broken_on_the_worker_alone_stops_the_run(
    folder: Path, tmp_path: Path
) -> None:
    for package in ("pcr_plugin", "hydra_plugins"):
        copy_source(ROOT / package, tmp_path / package)
    broken = tmp_path / "pcr_plugin" / "verl" / "refusals.py"
    only_under_ray = 'if "RAY_RAYLET_PID" in os.environ:\n    raise ImportError("old copy")\n'
    broken.write_text("import os\n" + only_under_ray + broken.read_text())
    result = run(folder, [ONE_KEY], PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert result.status != 0
    assert result.steps == []
    assert "old copy" in result.output
    assert "pcr doctor" in result.output
    assert "every worker" in result.output
