"""Many layers together against each alone, and inputs that several layers read."""

import torch
from torch import Tensor, nn

from pcr_plugin.estimators.last_projection import LastProjection
from pcr_plugin.estimators.probed_columns import ProbedColumns
from pcr_plugin.estimators.probed_rows import ProbedRows
from pcr_plugin.gradients import LinearLayer, Side
from pcr_plugin.statistics import TokenRows

LAYERS, PROBES = 21, 3
TOKENS = TokenRows.of(torch.tensor([0, 0, 1, -1, 2, 2, 2]), 3)


def layer(index: int) -> LinearLayer:
    """Every third one has a bias, which is not counted in every second of these."""
    return LinearLayer(
        module=nn.Linear(4, 4),
        name=str(index),
        inputs=Side(width=4),
        outputs=Side(width=4),
        weight=2 * index,
        bias=2 * index + 1 if index % 3 == 0 else None,
        counts_bias=index % 2 == 0,
    )


def found_of(layers: list[LinearLayer], columns: ProbedColumns, only: int | None = None) -> Tensor:
    rows = ProbedRows(TOKENS, torch.ones(3), columns, len(layers))
    for index, one in enumerate(layers):
        draw = torch.Generator().manual_seed(index)
        signal, hidden = torch.randn(2, 7, PROBES, generator=draw, dtype=torch.float64)
        if only in (None, index):
            rows.add(one, signal, hidden)
    return rows.finish()


def test_layers_together_are_what_each_is_alone() -> None:
    layers = [layer(index) for index in range(LAYERS)]
    columns = ProbedColumns(layers, [0] * 2 * LAYERS, 1, PROBES, torch.device("cpu"))
    alone = sum(found_of(layers, columns, only=index) for index in range(LAYERS))
    together = found_of(layers, columns)
    assert torch.allclose(together, alone)
    assert (together[:, columns.of(2 * LAYERS - 2)] != 0).all()
    assert (together[:, columns.of(1)] != 0).all()
    assert (together[:, columns.of(2 * 3 + 1)] == 0).all()


def test_an_input_is_read_once_for_layers_of_one_name() -> None:
    last, inputs, projection = LastProjection(), torch.ones(2, 3), torch.ones(2, 1)
    last.keep("mlp 3", inputs, projection)
    assert last.get("mlp 3", inputs) is projection
    assert last.get("other 3", inputs) is None
    assert last.get(None, inputs) is None
    assert last.get("mlp 3", inputs.clone()) is None


def test_an_input_that_has_changed_is_read_again() -> None:
    last, inputs = LastProjection(), torch.ones(2, 3)
    last.keep("mlp 3", inputs, torch.ones(2, 1))
    inputs.add_(1)
    assert last.get("mlp 3", inputs) is None


def test_directions_of_a_layer_alone_are_not_kept() -> None:
    last, inputs = LastProjection(), torch.ones(2, 3)
    last.keep(None, inputs, torch.ones(2, 1))
    assert last.get(None, inputs) is None
