"""The tables of the page, of a whole design: every run has its place."""

import math
import random
from dataclasses import replace

from examples.study import design, jobs
from examples.study.contents import tables
from examples.study.recipe import Point
from examples.study.records import MEASURED, Found, Record

CENTRE = design.CENTRE


def record(point: Point, solved: float) -> Record:
    measured = {name: [0.5, 0.25] for name in MEASURED} | {"solved": [0.0, solved]}
    means = {"gradient norm": 2.0, "deviation of the gradient norm": 0.5, "clipped steps": 0.25}
    return Record("engine", point, [0, design.ENGINE_SIZES.steps], measured, means, 60)


def score_of(point: Point) -> float:
    """Another one for every point, and for every seed of it."""
    name = jobs.name_of(replace(point, seed=0))
    return 0.2 + random.Random(name).random() / 2 + point.seed / 100


def everything() -> Found:
    engine = [record(point, score_of(point)) for point in design.engine().points]
    full = [
        replace(
            record(point, score_of(point) + 0.1), tier="full", steps=[0, design.FULL_SIZES.steps]
        )
        for point in design.full().points
    ]
    both = [
        replace(each, steps=[0, design.FULL_SIZES.steps, design.ENGINE_SIZES.steps])
        for each in engine
    ]
    for each in both:
        each.measured.update({k: [v[0], v[1], v[1]] for k, v in each.measured.items()})
    return Found([*both, *full], {"code": "c0de"})


def rows_of(table: str) -> list[list[str]]:
    return [line[2:-2].split(" | ") for line in table.splitlines()[2:]]


def key(point: Point) -> tuple[str, ...]:
    scope = "" if point.rule == "stock" else point.scope
    return (point.rule, f"{point.beta:g}", f"{point.rate:g}", scope)


# The tables of points, by the questions of a step.
OF_POINTS = {"front": None, "rules": None, "rates": None, "scopes": None, "noisy": 8}


def test_every_point_of_the_design_is_shown_with_its_own_runs() -> None:
    made = tables(everything())
    points = {
        (point.prompts, *key(point)): point for point in design.engine().points if not point.seed
    }
    shown = set()
    for name, prompts in OF_POINTS.items():
        for row in rows_of(made[name]):
            point = points[(prompts, *row[:4])]
            shown.add(point)
            mean = score_of(replace(point, seed=2))
            seeds = sum(replace(point, seed=each) in design.engine().points for each in range(5))
            assert row[4].startswith(f"{mean:.3f} ± "), (name, row)
            assert row[-1] == str(seeds) == "5"
    left = {key(point) for point in points.values() if point not in shown}
    assert (
        left
        == {
            key(replace(CENTRE, rule="observe", scope="all")),  # for a picture
            # For the other tier.
            *(key(replace(CENTRE, rule=rule, beta=1.0)) for rule in design.FULL_RULES[1:]),
        }
    )


def test_every_rule_is_priced_and_so_are_the_controls() -> None:
    made = tables(everything())
    priced = {
        name: [tuple(row[:4]) for row in rows_of(made[name])]
        for name in made
        if name.endswith("prices")
    }
    assert priced.keys() == {
        *("front prices", "rules prices", "rates prices", "scopes prices", "noisy prices")
    }
    controls = [tuple(row[:2]) for row in rows_of(made["controls"])]
    assert controls == [("stock", f"{beta:g}") for beta in (0.003, 0.01, 0.03, 0.1, 0.3)]
    rules = [
        key(replace(CENTRE, rule=rule, beta=beta)) for rule in design.FRONT for beta in design.BETAS
    ]
    assert priced["front prices"] == rules
    assert [row[0] for row in priced["rules prices"]] == list(design.OTHER_RULES)
    assert [row[2] for row in priced["rates prices"]] == ["0.0004"] * 4
    assert [row[3] for row in priced["scopes prices"]] == list(design.SCOPES) * 2
    assert [row[:2] for row in priced["noisy prices"][:2]] == [("stock", "0.01"), ("stock", "0.03")]
    assert [row[0] for row in priced["noisy prices"][2:]] == list(design.NOISY_RULES)


def test_the_duels_are_those_that_the_study_is_about() -> None:
    # The same prices for all: each run is on the line that stock's are on.
    records = [record(point, 0.3) for point in design.engine().points]
    line = [
        replace(each, measured=each.measured | {"perplexity": [0.5, 0.5], "solved": [0.0, score]})
        for each in records
        for score in [0.1 - 0.1 * math.log10(each.point.beta) + each.point.seed / 1000]
    ]
    made = tables(Found(line, {}))
    rows = rows_of(made["front duels"])
    assert [row[:2] for row in rows] == [
        ["pcr_relative_floor_ema", "pcgrad_floor"],
        ["pcr_relative_floor_ema", "soft0.5_floor"],
        ["pcr_beta_floor_ema", "pcgrad_floor"],
        ["pcr_beta_floor_ema", "soft0.5_floor"],
    ]
    for name in ("noisy against one", "noisy against half"):
        assert [row[0] for row in rows_of(made[name])] == ["pcr_relative_floor_ema"]
    told = rows_of(made["rules duels"])
    assert ["pcr_relative_floor_ema", "pcr_relative_floor"] in [row[:2] for row in told]
    assert len(told) == 8


def test_tables_of_the_whole_design_come_from_records_of_any_part_of_it() -> None:
    """Also while a study is under way."""
    records = [record(point, score_of(point)) for point in design.engine().points[:65]]
    found = tables(Found(records, {}))
    assert "| stock | 0.1 |" in found["front"]
    assert "| pcr_relative_floor_ema | 0.1 |" in found["front tests"]
    assert "| engine | 65 | 253 | 0 | 60 | 1.1 |" in found["runs"]
    assert "| full | 0 | 24 |  | 0 | 0.0 |" in found["runs"]
    nothing = tables(Found([], {}))
    empty = {name: table for name, table in nothing.items() if name not in ("runs", "versions")}
    assert {table.count("\n") for table in empty.values()} == {2}  # the headings
    assert nothing["versions"] == ""
    assert tables(Found(records, {"code": "c0de", "torch": "2.0"}))["versions"].splitlines() == [
        "| code | torch |",
        "| --- | --- |",
        "| c0de | 2.0 |",
    ]


def test_the_other_tier_is_predicted_at_its_last_step() -> None:
    made = tables(everything())
    rows = rows_of(made["prediction"])
    assert len(rows) == len(design.FULL_RULES) * 4 + 1
    assert {row[-1] for row in rows[:-1]} == {"1", "2"}
    assert {row[-2] for row in rows[:-1]} == {"1", "5"}
    assert rows[-1][:3] == ["correlation", "", "1.00"]
    assert len(rows_of(made["full"])) == 16
    assert [row[0] for row in rows_of(made["full tests"])] == [
        rule for rule in design.FULL_RULES[1:] for _ in range(4)
    ]
    assert [row[0] for row in rows_of(made["rules tests"])] == [
        *design.FRONT,
        *design.OTHER_RULES,
    ]
