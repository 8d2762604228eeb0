"""The notebook on the uncertainty of alpha, run as a whole, and its pieces recomputed."""

import re
import runpy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.uncertainty.policy import ANSWERS, answer, gradients, losses, train
from examples.uncertainty.resampling import draw, mean_product, pool_of
from tests.unit.explicit_vectors import normal, variance_of_mean

PAGE = (Path(__file__).parents[2] / "docs" / "theory.md").read_text()
# Of a band: the median, then its ends.
ORDER = (1, 0, 2)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = runpy.run_module("examples.uncertainty.notebook")
    return {**result, "folder": folder}


def widths(rows: list[list[float]]) -> list[float]:
    return [high - low for low, _, high in rows]


def test_bands_narrow_as_units_are_added(notebook: dict[str, Any]) -> None:
    """With the square root of the units: from 2 to 32 prompts by about four."""
    for values in notebook["bands"].values():
        first, *_, last = widths(values["alpha"])
        assert last < 0.4 * first
        assert widths(values["beta_eff"])[-1] < 0.6 * widths(values["beta_eff"])[0]


def test_alpha_of_prompts_closes_in_on_the_pool_and_that_of_answers_does_not(
    notebook: dict[str, Any],
) -> None:
    for name, whole in notebook["whole_pool"].items():
        low, middle, high = notebook["bands"][name, "prompts"]["alpha"][-1]
        assert low < whole < high
        assert middle == pytest.approx(whole, rel=0.05)
        low, *_ = notebook["bands"][name, "answers"]["alpha"][-1]
        assert low > whole


def test_beta_eff_falls_with_the_size_of_the_mini_batch(notebook: dict[str, Any]) -> None:
    for values in notebook["bands"].values():
        medians = [middle for _, middle, _ in values["beta_eff"]]
        assert medians[-1] < 0.85 * medians[0]
    for of_sizes in notebook["shares"].values():
        assert of_sizes[0] > 0.2
        assert of_sizes == sorted(of_sizes, reverse=True)


def test_mean_product_is_that_of_all_mini_batches_of_a_size() -> None:
    p, s = normal(2, 2, 4 * ANSWERS, 10).view(2, 4, ANSWERS, 10).mean(dim=2)
    answers = normal(2, 2, 4 * ANSWERS, 10)
    chosen = [list(pair) for pair in combinations(range(4), 2)]
    expected = sum((p[rows].mean(dim=0) @ s[rows].mean(dim=0)).item() for rows in chosen) / 6
    different = sum((p[i] @ s[j]).item() for i in range(4) for j in range(4) if i != j) / 12
    mean, share = mean_product(pool_of(*answers, ANSWERS), 2)
    assert mean == pytest.approx(expected)
    assert share == pytest.approx(1 - different / expected)


def test_the_page_has_the_numbers_of_the_notebook(notebook: dict[str, Any]) -> None:
    for name, shares in notebook["shares"].items():
        [row] = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
        of_prompts, of_answers = (notebook["bands"][name, unit] for unit in ("prompts", "answers"))
        betas = [of_prompts["beta_eff"][i][1] for i in (0, 2, 4)]
        alphas = [
            value[2][i] for value in (of_prompts["alpha"], of_answers["alpha"]) for i in ORDER
        ]
        fresh = [*(100 * shares[i] for i in (0, 2, 4)), *alphas, *betas]
        shown = [float(number) for number in re.findall(r"[\d.]+", row.removeprefix(f"| {name} |"))]
        # Shown with two digits; another machine may round a few sampled tokens the other way.
        assert shown[:3] == pytest.approx(fresh[:3], abs=10)
        assert shown[3:] == pytest.approx(fresh[3:], rel=0.15, abs=0.01)


def test_the_figure_is_written(notebook: dict[str, Any]) -> None:
    picture = Path(notebook["folder"]) / "outputs" / "uncertainty.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    for axis in notebook["axes"][:, 0]:
        assert axis.get_ylabel()
    for axis in notebook["axes"][2]:
        assert axis.get_xlabel()


def test_gradients_of_answers_add_up_to_those_of_the_losses() -> None:
    model, reference = train(seed=1, steps=1, prompts=4)
    batch = answer(model, 3, torch.Generator().manual_seed(0))
    apart = gradients(model, reference, batch)
    for objective, loss in enumerate(losses(model, reference, batch.ids, batch.advantages)):
        for name, layer in zip(apart, model.model.layers, strict=True):
            wanted = list(layer.mlp.parameters())
            whole = torch.autograd.grad(loss, wanted, retain_graph=True)
            expected = torch.cat([gradient.flatten() for gradient in whole])
            torch.testing.assert_close(apart[name][objective].mean(0), expected)


@pytest.mark.parametrize("whole", [True, False])
def test_a_mini_batch_is_decided_on_as_its_vectors_would_be(whole: bool) -> None:
    """All of a small pool, whose order then does not matter, from explicit gradients."""
    vectors = normal(0, 2, 3 * ANSWERS, 20)
    p, s = vectors[0], vectors[1] - 0.5 * vectors[0]
    found = draw(pool_of(p, s, ANSWERS), 3, 2, 0.05, whole=whole, seed=0)
    variances = []
    for gradient in (p, s):
        units = gradient / len(gradient)
        if whole:
            units = units.view(3, ANSWERS, -1).sum(dim=1)
        variances.append(variance_of_mean(units, torch.ones(len(units)).double()))
    alpha = variances[0] / (variances[0] + variances[1])
    mean_p, mean_s = p.mean(dim=0), s.mean(dim=0)
    assert found.alpha.tolist() == pytest.approx([alpha.item()] * 2)
    assert found.conflict.all()
    expected = -alpha * (mean_p @ mean_s) / (mean_s @ mean_s)
    assert found.beta_eff.tolist() == pytest.approx([expected.item()] * 2)
