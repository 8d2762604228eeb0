"""docs/configuration.md: keys, defaults and values are those of the dataclasses."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from pcr_plugin.config import PCRSettings, VarianceSettings, resolve, settings_from_mapping
from pcr_plugin.config import settings as choices
from pcr_plugin.config.presets import PRESETS
from pcr_plugin.config.rule import RULES
from pcr_plugin.verl.refusals_losses import BIASED_KL, GOOD_KL

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
README = (ROOT / "README.md").read_text()
ROW = r"^\| `((?:update_rule|pcr\.)[\w.]*)`(?: P)? \| (.*) \|$"
ROWS = {
    key: cells.split(" | ")
    for key, cells in re.findall(ROW, PAGE, re.MULTILINE)
    if len(cells.split(" | ")) == 3
}


def fields_of(kind: type, prefix: str) -> dict[str, Any]:
    defaults = kind()
    return {
        f"{prefix}.{field.name}": getattr(defaults, field.name)
        for field in dataclasses.fields(kind)
        if field.name != "variance"
    }


KEYS = fields_of(PCRSettings, "pcr") | fields_of(VarianceSettings, "pcr.variance")
NAMES = {
    "update_rule": ("null", *RULES),
    "pcr.preset": tuple(PRESETS),
    "pcr.scope": choices.NAMED_SCOPES,
    "pcr.block": choices.BLOCKS,
    "pcr.variance.estimator": choices.ESTIMATORS,
    "pcr.variance.scale": choices.SCALES,
    "pcr.passes": choices.PASSES,
    "pcr.zero_advantage": choices.ZERO_ADVANTAGE,
}
# The words of the column `values`, with values at the edge: allowed, refused.
EDGES: dict[str, tuple[list[Any], list[Any]]] = {
    "0 to 1": ([0, 1, 0.5], [-1e-9, 1 + 1e-9, True, "0.5"]),
    "0 to below 1": ([0, 0.999], [1, -1e-9]),
    "integer from 1": ([1, 10**6], [0, -1, 1.5, True]),
    "`true`, `false`": ([True, False], [0, 1, "true"]),
}


def as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def setting(key: str, value: Any) -> PCRSettings:
    """The settings with one key below `pcr` set."""
    nested: Any = value
    for part in reversed(key.split(".")[1:]):
        nested = {part: nested}
    return settings_from_mapping(nested)


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    assert set(ROWS) == {"update_rule", *KEYS}


@pytest.mark.parametrize("key", KEYS)
def test_default_in_the_table_is_the_dataclass_default(key: str) -> None:
    assert ROWS[key][0] == f"`{as_yaml(KEYS[key])}`"


def test_every_key_s_values_are_tried() -> None:
    assert {key for key, row in ROWS.items() if row[1] not in EDGES} == set(NAMES)


@pytest.mark.parametrize("key", NAMES)
def test_names_in_the_table_are_the_legal_ones(key: str) -> None:
    assert tuple(re.findall(r"`(\w+)`", ROWS[key][1])) == NAMES[key]


@pytest.mark.parametrize("key", sorted(KEYS.keys() - NAMES.keys()))
def test_range_in_the_table_is_what_is_accepted(key: str) -> None:
    allowed, refused = EDGES[ROWS[key][1]]
    for value in allowed:
        setting(key, value)
    for value in refused:
        with pytest.raises(ValueError, match=re.escape(key)):
            setting(key, value)


def test_keys_marked_p_are_those_of_the_presets_with_their_values() -> None:
    marked = re.findall(r"^\| `pcr\.([\w.]+)` P \|", PAGE, re.MULTILINE)
    columns = {
        "variance.scale": "scale",
        "variance.ema": "ema",
        "stability_floor": "stability_floor",
    }
    assert set(marked) == set(columns)
    for name, preset in PRESETS.items():
        shown = (
            f"| `{name}` | {preset.scale} | {preset.ema:g} | {as_yaml(preset.stability_floor)} |"
        )
        assert shown in PAGE
        rule = resolve("pcr", PCRSettings(preset=name))
        assert rule is not None
        assert (rule.scale, rule.ema, rule.stability_floor) == (
            preset.scale,
            preset.ema,
            preset.stability_floor,
        )


def test_number_of_probes_in_the_table_is_the_default() -> None:
    assert f"`null` is {choices.DEFAULT_PROBES}" in ROWS["pcr.variance.probes"][2]


def test_kl_types_in_the_table_are_those_that_are_taken() -> None:
    [row] = re.findall(r"^\| `actor_rollout_ref\.actor\.kl_loss_type` \| (.*) \|$", PAGE, re.M)
    good, biased, refused = row.split(". ")[0], row.split(". ")[1], row.split(". ")[2]
    assert set(re.findall(r"`([\w+]+)`", good)) == set(GOOD_KL)
    assert set(re.findall(r"`([\w+]+)`", biased)) == set(BIASED_KL)
    assert not set(re.findall(r"`([\w+]+)`", refused)) & {*GOOD_KL, *BIASED_KL}


def test_the_short_table_of_the_readme_says_the_same() -> None:
    short = dict(re.findall(ROW, README, re.MULTILINE))
    assert {"update_rule", "pcr.preset"} <= set(short) <= set(ROWS)
    for key, cells in short.items():
        in_readme = re.findall(r"`([^`]+)`", cells.split(" | ")[0])
        assert in_readme == re.findall(r"`([^`]+)`", ROWS[key][1]), key
