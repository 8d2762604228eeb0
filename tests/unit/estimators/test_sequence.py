"""Variances over sequences, against gradients of sequences computed one by one."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from pcr_plugin.blocks import partition
from pcr_plugin.estimators import Objective, SequenceEstimator, SequenceRanks
from pcr_plugin.statistics import TokenRows, variance_of_total
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from pcr_plugin.verl.linear_layers import linear_layers

WIDTH, INNER, LENGTHS = 8, 12, (3, 5, 1, 7, 4)
SEEDS = 300
ALONE = SequenceRanks(
    sum_parts=lambda values: values,
    sum_all=lambda values: values,
    counts_rows=True,
    counts_sums=True,
    counts_units=True,
)
PACKED, SINGLY = ((0, 1, 2, 3, 4),), ((3,), (0,), (4,), (1,), (2,))


class GatedMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, INNER)
        self.up_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        inner: Tensor = silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        return self.down_proj(inner)


class Layer(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.mlp, self.reentrant = GatedMLP(), reentrant

    def forward(self, hidden: Tensor) -> Tensor:
        if self.reentrant is None:
            return hidden + self.mlp(hidden)
        return hidden + checkpoint(self.mlp, hidden, use_reentrant=self.reentrant)


class Tower(nn.Module):
    """Two layers; `reentrant` of the recomputation of activations, if there is one."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(reentrant) for _ in range(2))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class Trial:
    """Sequences of unequal lengths, a loss that is a mean over their tokens, and an estimator."""

    def __init__(self, reentrant: bool | None = None, probes: int = 4) -> None:
        torch.manual_seed(0)
        self.network = Tower(reentrant).double()
        names = [name for name, _ in self.network.named_parameters()]
        self.blocks = partition(names, "mlp")
        self.lengths = torch.tensor(LENGTHS)
        self.rows = torch.arange(len(LENGTHS)).repeat_interleave(self.lengths)
        self.inputs = torch.randn(len(self.rows), WIDTH, dtype=torch.float64)
        self.targets = torch.randn_like(self.inputs)
        self.step = 0
        gradients = Fsdp2Gradients(self.network, self.blocks)
        self.estimator = SequenceEstimator(
            gradients,
            linear_layers(self.network, gradients.names),
            len(self.blocks),
            probes=probes,
            step=lambda: self.step,
            gradient_scale=1.0,
            device=torch.device("cpu"),
            ranks=ALONE,
        )

    def loss(self, rows: Sequence[int], padding: int = 0) -> Tensor:
        where = torch.cat([torch.nonzero(self.rows == row).flatten() for row in rows])
        hidden = torch.cat([self.inputs[where], torch.ones(padding, WIDTH, dtype=torch.float64)])
        output = self.network(hidden.requires_grad_())[: len(where)]
        error: Tensor = (output - self.targets[where]).square().sum() / len(self.rows)
        return error

    def run(self, micro_batches: Sequence[Sequence[int]], _: int | None, padding: int = 0) -> None:
        self.network.zero_grad()
        for rows in micro_batches:
            loss = self.loss(rows, padding)
            lengths = self.lengths[list(rows)]
            labels = torch.arange(len(rows)).repeat_interleave(lengths)
            labels = torch.cat([labels, torch.full((padding,), -1)])
            self.estimator.start_micro_batch(TokenRows.of(labels, len(rows)), lengths.double())
            loss.backward()

    def estimate(self, micro_batches: Sequence[Sequence[int]], **named: Any) -> Tensor:
        """(B,) V of one objective, from the probes of one step."""
        self.estimator.begin()
        self.estimator.collect(Objective.STABILITY, partial(self.run, micro_batches, **named))
        assert not self.estimator.problem
        columns = self.estimator.columns([], [])
        of = Objective.STABILITY
        return variance_of_total(
            columns.squares[:, of] * columns.mass, columns.totals[:, of], columns.units
        )

    def exact(self) -> Tensor:
        """(B,) V from a backward pass for every sequence."""
        shares = self.lengths / self.lengths.sum()
        table = []
        for row in range(len(LENGTHS)):
            self.network.zero_grad()
            self.loss([row]).backward()
            held = {n: p.grad for n, p in self.network.named_parameters()}
            table.append(
                [torch.cat([held[n].flatten() for n in b.parameters]) for b in self.blocks]
            )
        spread = []
        for block in range(len(self.blocks)):
            rows = torch.stack([line[block] for line in table])
            deviations = rows / shares[:, None] - rows.sum(dim=0)
            spread.append((shares * deviations.square().sum(dim=1)).sum() / (len(LENGTHS) - 1))
        return torch.stack(spread)


def seeds(trial: Trial) -> Iterator[int]:
    for step in range(SEEDS):
        trial.step = step
        yield step


@pytest.mark.parametrize("reentrant", [None, False, True], ids=["plain", "recomputed", "reentrant"])
def test_unbiased(reentrant: bool | None) -> None:
    """A factor of M / (M - 1), or a sequence counted twice, would be many standard errors off."""
    trial = Trial(reentrant)
    found = torch.stack([trial.estimate(((1, 0), (2, 3, 4))) for _ in seeds(trial)])
    error = found.std(dim=0) / SEEDS**0.5
    assert ((found.mean(dim=0) - trial.exact()).abs() < 3 * error).all()
    assert (error < 0.02 * trial.exact()).all()
    assert (found >= 0).all()


@pytest.mark.parametrize("micro_batches", [PACKED, SINGLY], ids=["packed", "singly"])
def test_does_not_depend_on_how_the_rows_are_cut(micro_batches: Sequence[Sequence[int]]) -> None:
    trial = Trial()
    reference = trial.estimate(((1, 0), (2, 3, 4)))
    assert torch.allclose(trial.estimate(micro_batches), reference, rtol=1e-12)


def test_does_not_depend_on_padding() -> None:
    trial = Trial()
    assert torch.allclose(trial.estimate(PACKED, padding=3), trial.estimate(PACKED), rtol=1e-12)


def test_does_not_depend_on_recomputation() -> None:
    found = [Trial(reentrant).estimate(PACKED) for reentrant in (None, False, True)]
    assert torch.allclose(found[1], found[0], rtol=1e-12)
    assert torch.allclose(found[2], found[0], rtol=1e-12)


def test_equal_rows_have_no_variance() -> None:
    """What all rows have in common cancels within the probes, and leaves no error of its own."""
    trial = Trial()
    trial.lengths = torch.full_like(trial.lengths, 4)
    trial.rows = torch.arange(5).repeat_interleave(4)
    trial.inputs = trial.inputs[:4].repeat(5, 1)
    trial.targets = trial.targets[:4].repeat(5, 1)
    columns_of_one_row = trial.estimate(SINGLY)
    assert (columns_of_one_row.abs() < 1e-12).all()


def test_more_probes_are_more_precise() -> None:
    spread = {}
    for probes in (2, 8):
        trial = Trial(probes=probes)
        found = torch.stack([trial.estimate(PACKED) for _ in range(100) if next_seed(trial)])
        spread[probes] = found.std(dim=0)
    assert (spread[8] < 0.6 * spread[2]).all()


def next_seed(trial: Trial) -> bool:
    trial.step += 1
    return True


def test_rows_without_weight_are_no_units() -> None:
    trial = Trial()
    trial.estimator.begin()

    def run(_: int | None) -> None:
        loss = trial.loss([0, 1])
        tokens = TokenRows.of(torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), 2)
        trial.estimator.start_micro_batch(tokens, torch.tensor([3.0, 0.0]))
        loss.backward()

    trial.estimator.collect(Objective.PLASTICITY, run)
    assert not trial.estimator.problem
    columns = trial.estimator.columns([], [])
    assert columns.units.tolist() == [1, 1]
    assert columns.mass.tolist() == [3, 3]
    assert torch.isfinite(columns.squares).all()


def test_a_layer_that_gets_other_tokens_is_noticed() -> None:
    trial = Trial()
    trial.estimator.begin()

    def run(_: int | None) -> None:
        loss = trial.loss([0, 1])
        trial.estimator.start_micro_batch(TokenRows.of(torch.zeros(9).long(), 1), torch.ones(1))
        loss.backward()

    trial.estimator.collect(Objective.PLASTICITY, run)
    assert "got 8 gradients and 8 inputs of 'layers.1.mlp.down_proj'" in trial.estimator.problem
    assert "split_half" in trial.estimator.problem


def test_a_weight_used_behind_its_modules_back_is_noticed() -> None:
    trial = Trial()
    layer = trial.network.layers[0].mlp.down_proj
    original = layer.forward

    def unseen(hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, layer.weight, layer.bias)

    mlp = trial.network.layers[0].mlp
    mlp.forward = lambda hidden: unseen(silu(mlp.gate_proj(hidden)) * mlp.up_proj(hidden))
    assert original is not None
    trial.estimator.begin()
    trial.estimator.collect(Objective.PLASTICITY, partial(trial.run, PACKED))
    assert "saw 0 gradients of 'layers.0.mlp.down_proj'" in trial.estimator.problem


def test_a_gradient_without_a_micro_batch_is_noticed() -> None:
    trial = Trial()
    trial.estimator.begin()
    trial.estimator.collect(Objective.PLASTICITY, lambda _: trial.loss([0]).backward())
    assert "more often than micro-batches" in trial.estimator.problem


def test_other_passes_leave_no_trace() -> None:
    trial = Trial()
    reference = trial.estimate(PACKED)
    trial.loss([0]).backward()
    assert torch.equal(trial.estimate(PACKED), reference)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("mlp.norm.weight", nn.LayerNorm(WIDTH)),
        ("mlp.convolution.weight", nn.Conv1d(WIDTH, WIDTH, 1)),
        ("mlp.experts.0.weight", nn.Linear(WIDTH, WIDTH)),
    ],
)
def test_what_is_not_read_is_refused_by_name(name: str, module: nn.Module) -> None:
    network = nn.ModuleDict({"mlp": nn.ModuleDict()})
    owner = network["mlp"]
    *folders, last, _ = name.split(".")[1:]
    for folder in folders:
        owner[folder] = nn.ModuleDict()
        owner = owner[folder]
    owner[last] = module
    with pytest.raises(ValueError, match=r"pcr\.variance\.estimator='sequence'.*" + name):
        linear_layers(network, [name])


def test_a_weight_of_two_layers_is_refused() -> None:
    """The hooks on one of them would read a part of its gradient."""
    network = nn.ModuleDict({"first": nn.Linear(WIDTH, WIDTH), "second": nn.Linear(WIDTH, WIDTH)})
    network["second"].weight = network["first"].weight
    with pytest.raises(ValueError, match=r"first\.weight"):
        linear_layers(network, ["first.weight", "first.bias"])


def test_nothing_outlives_the_step() -> None:
    trial = Trial()
    trial.estimate(PACKED)
    held = [value for value in vars(trial.estimator).values() if isinstance(value, list | dict)]
    assert [len(value) for value in held if any(map(torch.is_tensor, _values(value)))] == []


def _values(found: list[Any] | dict[Any, Any]) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else found
