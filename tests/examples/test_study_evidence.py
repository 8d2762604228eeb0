"""From the runs' logs to the page: records, tests over seeds, tables in their places."""

import json
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from examples.study import design, evidence
from examples.study.comparison import by_point, over_seeds, paired
from examples.study.pooled import pooled_table
from examples.study.recipe import Point
from examples.study.records import MEASURED, Found, Record, collect, read, write
from examples.study.sweep import Job
from examples.study.tables import difference_table, point_table, prediction_table

CENTRE = design.CENTRE
GENERATOR = random.Random(0)


def record(point: Point, solved: float) -> Record:
    measured = {name: [0.5, 0.25] for name in MEASURED} | {"solved": [0.0, solved]}
    means = {"gradient norm": 2.0, "deviation of the gradient norm": 0.5, "clipped steps": 0.25}
    return Record("engine", point, [0, 24], measured, means, 60)


def runs_of(rule: str, values: list[float], **changes: float) -> list[Record]:
    points = [replace(CENTRE, rule=rule, seed=seed, **changes) for seed in range(len(values))]
    return [record(point, value) for point, value in zip(points, values, strict=True)]


def solved(found: Record) -> float | None:
    return found.at("solved")


def as_stock(point: Point) -> Point:
    return replace(point, rule="stock")


def test_a_mean_over_seeds_has_its_standard_error() -> None:
    values = [0.1, 0.4, 0.2]
    found = over_seeds(by_point(runs_of("stock", values)), CENTRE, solved)
    assert found is not None
    assert found.mean == pytest.approx(sum(values) / 3)
    assert found.error == pytest.approx(stats.sem(values))
    assert over_seeds({}, CENTRE, solved) is None


def test_a_paired_test_is_that_of_scipy() -> None:
    ours = [GENERATOR.gauss(0.6, 0.1) for _ in range(5)]
    theirs = [GENERATOR.gauss(0.5, 0.1) for _ in range(5)]
    runs = by_point(runs_of("robust", ours) + runs_of("stock", theirs))
    found = paired(runs, replace(CENTRE, rule="robust"), as_stock, solved)
    assert found is not None
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.difference.mean == pytest.approx(sum(ours) / 5 - sum(theirs) / 5)


def test_seeds_that_only_one_has_are_left_out() -> None:
    runs = by_point(runs_of("robust", [0.5, 0.6, 0.7]) + runs_of("stock", [0.4, 0.4]))
    found = paired(runs, replace(CENTRE, rule="robust"), as_stock, solved)
    assert found is not None
    assert found.difference.count == 2
    alone = by_point(runs_of("robust", [0.5]))
    assert paired(alone, replace(CENTRE, rule="robust"), as_stock, solved) is None


def test_no_difference_at_all_is_no_evidence() -> None:
    runs = by_point(runs_of("robust", [0.5, 0.5]) + runs_of("stock", [0.5, 0.5]))
    found = paired(runs, replace(CENTRE, rule="robust"), as_stock, solved)
    assert found is not None
    assert found.p_value == 1.0


def finished(folder: Path, name: str, what: dict[str, Any], log: str = "") -> Job:
    """A job, and its folder as a run leaves it."""
    job = Job(folder / name, what, print, ())
    job.folder.mkdir(parents=True)
    (job.folder / "run.json").write_text(json.dumps(what))
    (job.folder / "done.json").write_text('{"seconds": 61.2}')
    (job.folder / "log.jsonl").write_text(log)
    return job


def what(**changes: Any) -> dict[str, Any]:
    point = {"rule": "robust", "beta": 0.1, "rate": 1e-3, "seed": 4}
    of_it = {"tier": "engine", "code": "c0de", "packages": {"torch": "2.0"}}
    return of_it | {"point": point, "overrides": ["a=1"]} | changes


LOG = "".join(
    json.dumps({"step": step, "data": data}) + "\n"
    for step, data in (
        (0, {MEASURED["skill"]: 1.0}),
        (1, {"actor/grad_norm": 1.0, "actor/pcr/alpha": 0.25, "actor/pcr/beta_eff": 0.02}),
        (2, {"actor/grad_norm": 3.0, "actor/pcr/alpha": 0.75, "actor/pcr/beta_eff": 0.04}),
        (3, {"actor/grad_norm": 2.0, MEASURED["skill"]: 0.8}),
    )
)


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = Found(runs_of("stock", [0.1, 0.2]), {"code": "c0de", "torch": "2.0"})
    write(tmp_path / "found.json", found)
    assert read(tmp_path / "found.json") == found
    write(tmp_path / "found.json", Found([], {}))
    assert read(tmp_path / "found.json") == Found([], {})


def test_of_a_run_the_measurements_and_the_means_are_kept(tmp_path: Path) -> None:
    job = finished(tmp_path, "any", what(), LOG)
    unfinished = Job(tmp_path / "unfinished", what(), print, ())
    [record] = collect([unfinished, job]).records
    assert record.point == Point(rule="robust", beta=0.1, rate=1e-3, seed=4)
    assert record.tier == "engine"
    assert record.steps == [0, 3]
    assert record.seconds == 61
    assert record.at("skill") == 0.8
    assert record.at("skill", 0) == 1.0
    assert record.at("skill", 1) is None
    assert record.rise("skill") == pytest.approx(-0.2)
    assert record.rise("perplexity") is None
    assert record.means == pytest.approx(
        {
            "alpha": 0.5,
            "effective beta": 0.03,
            "gradient norm": 2.0,
            "deviation of the gradient norm": 1.0,
            "clipped steps": 2 / 3,  # not the one whose norm is 1
        },
        abs=1e-5,
    )


@pytest.mark.parametrize(
    "changes", [{"code": "other"}, {"overrides": ["a=2"]}, {"packages": {"torch": "2.1"}}]
)
def test_a_run_of_another_design_or_other_code_is_no_record(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    old = finished(tmp_path, "old", what(**changes), LOG)
    new = finished(tmp_path, "new", what(), LOG)
    wanted = [Job(old.folder, what(), print, ()), new]
    found = collect(wanted)
    assert len(found.records) == 1
    assert found.made_by == {"code": "c0de", "torch": "2.0"}
    assert collect(wanted[:1]) == Found([], {})


def test_tables_leave_out_what_was_not_run() -> None:
    runs = by_point(runs_of("stock", [0.5, 0.7]) + runs_of("robust", [0.8, 0.9]))
    rows = [replace(CENTRE, rule=rule) for rule in ("stock", "robust", "paper")]
    lines = point_table(runs, rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| stock", "| robust"]
    assert "0.600 ± 0.100" in lines[2]
    assert "| -0.250 ± 0.000 |" in lines[2]  # of the skill, 0.5 at the start
    # Norm, its variance, its deviation as a share of it, clipped steps; no rule, so no alpha.
    spread = "| 2.00 ± 0.00 | 0.250 ± 0.000 | 0.250 ± 0.000 | 0.25 ± 0.00 |"
    assert lines[2].endswith(f"{spread}  |  |  |  | 2 |")
    lines = difference_table(runs, rows[1:], rule="stock").splitlines()
    p = stats.ttest_rel([0.8, 0.9], [0.5, 0.7]).pvalue
    assert len(lines) == 3
    assert f"| mlp | +0.250 (p {p:.3f}) | +0.000 (p 1.000) |" in lines[2]


def test_the_effective_beta_of_conflicts_is_told_from_that_of_all_blocks() -> None:
    """A quarter of the blocks at 0.05 and the others at beta."""
    own = {"conflicts": 0.25, "effective beta": 0.25 * 0.05 + 0.75 * 0.01}
    found = record(replace(CENTRE, rule="paper", beta=0.01), 0.5)
    runs = by_point([replace(found, means=found.means | own)])
    last = point_table(runs, list(runs)).splitlines()[-1]
    assert last.endswith("| 0.020 | 0.25 | 0.050 | 1 |")


def test_pooled_differences_have_the_interval_of_the_seeds() -> None:
    points = [replace(CENTRE, beta=beta) for beta in (0.01, 0.1)]
    kinds = {"stock": ([0.4, 0.5, 0.6], [0.2, 0.2, 0.3]), "paper": ([0.5, 0.5, 0.7], [0.4, 0.3])}
    runs = by_point(
        each
        for rule, values in kinds.items()
        for point, of_beta in zip(points, values, strict=True)
        for each in runs_of(rule, of_beta, beta=point.beta)
    )
    lines = pooled_table(runs, ("paper", "robust"), points).splitlines()
    assert len(lines) == 3
    # The third seed lacks a beta.
    differences = [(0.5 + 0.4 - 0.4 - 0.2) / 2, (0.5 + 0.3 - 0.5 - 0.2) / 2]
    low, high = stats.t.interval(0.95, 1, fmean(differences), stats.sem(differences))
    expected = f"| paper | {fmean(differences):+.3f} ({low:+.3f} to {high:+.3f}) |"
    assert lines[2].startswith(expected)
    assert lines[2].endswith("| 1.00 (1.00 to 1.00) | 2 |")


def test_a_table_stands_in_the_place_of_the_last_one(tmp_path: Path) -> None:
    page = "Before.\n<!-- table: front -->\nold\n<!-- end -->\nAfter.\n"
    once = evidence.filled(page, {"front": "new"}, tmp_path)
    assert once == "Before.\n<!-- table: front -->\n\nnew\n\n<!-- end -->\nAfter.\n"
    assert evidence.filled(once, {"front": "new"}, tmp_path) == once
    with pytest.raises(ValueError, match="no table 'front'; there are back"):
        evidence.filled(page, {"back": ""}, tmp_path)


def test_a_picture_is_shown_if_there_is_one(tmp_path: Path) -> None:
    page = "<!-- figure: betas -->\n![old](evidence/old.svg)\n<!-- end -->\n"
    assert evidence.filled(page, {}, tmp_path) == "<!-- figure: betas -->\n<!-- end -->\n"
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "betas.svg").touch()
    shown = "<!-- figure: betas -->\n\n![betas](evidence/betas.svg)\n\n<!-- end -->\n"
    assert evidence.filled(page, {}, tmp_path) == shown
    with pytest.raises(ValueError, match="no figure 'other'; there are front, betas"):
        evidence.filled(page.replace("betas", "other"), {}, tmp_path)


def test_records_that_are_kept_are_not_lost_where_there_are_no_runs(tmp_path: Path) -> None:
    kept = tmp_path / "evidence.json"
    kept.write_text("kept")
    with pytest.raises(SystemExit, match="no finished run of this design and this code"):
        evidence.main(["--runs", str(tmp_path / "none"), "--out", str(tmp_path)])
    assert kept.read_text() == "kept"


def test_how_well_one_tier_tells_the_other() -> None:
    betas = (0.01, 0.1, 1.0)
    values = [[0.2, 0.4, 0.3], [0.1, 0.3, 0.3]]
    points = [replace(CENTRE, beta=beta) for beta in betas]
    engine, full = (
        by_point(record(point, value) for point, value in zip(points, tier, strict=True))
        for tier in values
    )
    # A seed that the other tier has not run makes the mean of the first the better one.
    other = replace(points[0], seed=1)
    lines = prediction_table(engine | {other: record(other, 0.6)}, full, points, 24).splitlines()
    assert lines[2].startswith("| stock | 0.01 | 0.400 ± 0.200 | 0.100 | -0.250 ± 0.000 | -0.250 |")
    assert lines[2].endswith("| 2 | 1 |")
    values[0][0] = 0.4
    assert lines[-1].startswith(f"| correlation |  | {stats.pearsonr(*values)[0]:.2f} |")
    assert len(prediction_table(engine, full, points, 16).splitlines()) == 2
