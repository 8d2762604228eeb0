"""From the runs' logs to the page: records, tests over seeds, tables in their places."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from examples.study import design, evidence
from examples.study.comparison import by_point, over_seeds, paired
from examples.study.recipe import Point
from examples.study.records import MEASURED, Record, collect, read, write
from examples.study.tables import difference_table, point_table, prediction_table

CENTRE = design.CENTRE
GENERATOR = random.Random(0)


def record(point: Point, solved: float) -> Record:
    measured = {name: [0.5, 0.25] for name in MEASURED} | {"solved": [0.0, solved]}
    return Record("engine", point, [0, 30], measured, {"deviation of the gradient norm": 0.1}, 60)


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
    found = paired(runs, [replace(CENTRE, rule="robust")], as_stock, solved)
    assert found is not None
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.difference.mean == pytest.approx(sum(ours) / 5 - sum(theirs) / 5)


def test_several_points_of_a_seed_are_one_value() -> None:
    ours = [[GENERATOR.random() for _ in range(4)] for _ in range(2)]
    theirs = [[GENERATOR.random() for _ in range(4)] for _ in range(2)]
    betas = (0.1, 1.0)
    records = [
        each
        for index, beta in enumerate(betas)
        for rule, values in (("robust", ours[index]), ("stock", theirs[index]))
        for each in runs_of(rule, values, beta=beta)
    ]
    points = [replace(CENTRE, rule="robust", beta=beta) for beta in betas]
    found = paired(by_point(records), points, as_stock, solved)
    assert found is not None
    means = [[sum(pair) / 2 for pair in zip(*each, strict=True)] for each in (ours, theirs)]
    assert found.p_value == pytest.approx(stats.ttest_rel(*means).pvalue)


def test_seeds_that_only_one_has_are_left_out() -> None:
    runs = by_point(runs_of("robust", [0.5, 0.6, 0.7]) + runs_of("stock", [0.4, 0.4]))
    found = paired(runs, [replace(CENTRE, rule="robust")], as_stock, solved)
    assert found is not None
    assert found.difference.count == 2
    alone = by_point(runs_of("robust", [0.5]))
    assert paired(alone, [replace(CENTRE, rule="robust")], as_stock, solved) is None


def test_no_difference_at_all_is_no_evidence() -> None:
    runs = by_point(runs_of("robust", [0.5, 0.5]) + runs_of("stock", [0.5, 0.5]))
    found = paired(runs, [replace(CENTRE, rule="robust")], as_stock, solved)
    assert found is not None
    assert found.p_value == 1.0


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = runs_of("stock", [0.1, 0.2])
    write(tmp_path / "found.json", records)
    assert read(tmp_path / "found.json") == records


def test_of_a_run_the_first_and_the_last_measurement_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "engine" / "any"
    run.mkdir(parents=True)
    point = {"rule": "robust", "beta": 0.1, "rate": 1e-3, "seed": 4}
    (run / "run.json").write_text(json.dumps({"point": point}))
    (run / "done.json").write_text('{"seconds": 61.2}')
    key = MEASURED["skill"]
    rows: list[tuple[int, dict[str, float]]] = [
        (0, {key: 1.0}),
        (1, {"actor/grad_norm": 1.0, "actor/pcr/alpha": 0.25}),
        (2, {"actor/grad_norm": 3.0, "actor/pcr/alpha": 0.75, key: 0.8}),
    ]
    lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in rows]
    (run / "log.jsonl").write_text("".join(lines))
    (tmp_path / "engine" / "unfinished").mkdir()
    [found] = collect(tmp_path)
    assert found.point == Point(rule="robust", beta=0.1, rate=1e-3, seed=4)
    assert found.steps == [0, 2]
    assert found.seconds == 61
    assert found.at("skill") == 0.8
    assert found.at("skill", 0) == 1.0
    assert found.at("skill", 1) is None
    assert found.rise("skill") == pytest.approx(-0.2)
    assert found.rise("perplexity") is None
    assert found.means["alpha"] == 0.5
    assert found.means["deviation of the gradient norm"] == pytest.approx(2**0.5, abs=1e-4)


def test_tables_leave_out_what_was_not_run() -> None:
    runs = by_point(runs_of("stock", [0.5, 0.7]) + runs_of("robust", [0.8, 0.9]))
    rows = [replace(CENTRE, rule=rule) for rule in ("stock", "robust", "paper")]
    lines = point_table(runs, rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| stock", "| robust"]
    assert "0.600 ± 0.100" in lines[2]
    assert "| -0.250 ± 0.000 |" in lines[2]  # of the skill, 0.5 at the start
    lines = difference_table(runs, ("robust", "paper"), [CENTRE], "stock").splitlines()
    p = stats.ttest_rel([0.8, 0.9], [0.5, 0.7]).pvalue
    assert len(lines) == 3
    assert lines[2].startswith(f"| robust | 0.1 | +0.250 (p {p:.3f}) | +0.000 (p 1.000) |")


def test_a_table_stands_in_the_place_of_the_last_one() -> None:
    page = "Before.\n<!-- table: front -->\nold\n<!-- end -->\nAfter.\n"
    once = evidence.filled(page, {"front": "new"})
    assert once == "Before.\n<!-- table: front -->\n\nnew\n\n<!-- end -->\nAfter.\n"
    assert evidence.filled(once, {"front": "new"}) == once
    with pytest.raises(ValueError, match="no table 'front'; there are back"):
        evidence.filled(page, {"back": ""})


def test_tables_of_the_whole_design_come_from_records_of_any_part_of_it() -> None:
    """Also while a study is under way."""
    records = [record(point, 0.5) for point in design.engine().points[:60]]
    found = evidence.tables(records)
    assert "| stock | 0.1 |" in found["front"]
    assert "| pcr_relative_floor_ema | all |" in found["front tests"]
    assert "| engine | 60 | 250 | 0 | 1.0 |" in found["runs"]
    assert "| full | 0 | 24 |  | 0.0 |" in found["runs"]
    assert evidence.tables([])["front"].count("\n") == 2


def test_how_well_one_tier_tells_the_other() -> None:
    betas = (0.01, 0.1, 1.0)
    values = [[0.2, 0.4, 0.3], [0.1, 0.3, 0.3]]
    points = [replace(CENTRE, beta=beta) for beta in betas]
    engine, full = (
        by_point(record(point, value) for point, value in zip(points, tier, strict=True))
        for tier in values
    )
    lines = prediction_table(engine, full, points, 30).splitlines()
    assert lines[2].startswith("| stock | 0.01 | 0.200 | 0.100 | -0.250 | -0.250 |")
    assert lines[-1].startswith(f"| correlation |  | {stats.pearsonr(*values)[0]:.2f} |")
    assert len(prediction_table(engine, full, points, 20).splitlines()) == 2
