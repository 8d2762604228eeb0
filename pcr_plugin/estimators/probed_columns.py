"""Where the probes of every parameter are in one flat row, and what they add up to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcr_plugin.gradients import LinearLayer


class ProbedColumns:
    """A row has K^2 columns for every weight and K for every bias of the scope.

    Args:
        layers: the linear layers.
        cell_of: cell of every in-scope parameter.
        cells: number of cells C.
        probes: directions K on either side.
        device: of the rows.
    """

    def __init__(
        self,
        layers: Sequence[LinearLayer],
        cell_of: Sequence[int],
        cells: int,
        probes: int,
        device: torch.device,
    ) -> None:
        self._slices: dict[int, slice] = {}
        self._cells, self._device = cells, device
        owners: list[int] = []
        shares: list[float] = []
        for layer in layers:
            for parameter, columns in ((layer.weight, probes**2), (layer.bias, probes)):
                if parameter is not None:
                    self._slices[parameter] = slice(len(owners), len(owners) + columns)
                    owners += [cell_of[parameter]] * columns
                    shares += [1.0 / columns] * columns
        self._owner = torch.tensor(owners, dtype=torch.long, device=device)
        self._share = torch.tensor(shares, dtype=torch.float64, device=device)

    def of(self, parameter: int) -> slice:
        """The columns of a parameter."""
        return self._slices[parameter]

    def empty(self, rows: int) -> Tensor:
        """(rows, columns) of zeros."""
        return torch.zeros(rows, len(self._owner), dtype=torch.float64, device=self._device)

    def by_cell(self, squares: Tensor) -> Tensor:
        """Estimated squared norms from squared probes.

        Args:
            squares: (columns,) in float64.

        Returns:
            (C,) the mean over a parameter's columns, summed over a cell's parameters.
        """
        return squares.new_zeros(self._cells).index_add(0, self._owner, squares * self._share)
