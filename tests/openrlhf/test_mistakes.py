"""What a worker refuses: DeepSpeed and the model are known to it alone."""

import re

import pytest

from tests.openrlhf.conftest import Runs

_REFUSED = {
    "scattered gradients": r"contiguous_gradients=False.*leave it at true",
    "another optimizer on ZeRO-1": r"--ds\.zero_stage='1 \(SimpleNamespace\)'.*plain ZeRO optim",
    "another optimizer on ZeRO-3": r"--ds\.zero_stage='3 \(DeepSpeedZeroOptimizer\)'",
    "another release": r"deepspeed='0\.20\.0\+cpu'.*tested with 0\.19\.6",
    "norms in sequences": r"--actor\.pcr\.variance\.estimator='sequence'.*layernorm",
    "a scope of nothing": r"pcr\.scope=.*no_such.*matches no trainable parameter",
    "no KL loss": r"--algo\.kl\.use_loss=False.*set --algo\.kl\.use_loss",
}


@pytest.mark.parametrize("mistake", _REFUSED)
def test_every_rank_refuses_by_name(runs: Runs, mistake: str) -> None:
    for errors in runs.mistakes():
        assert re.search(_REFUSED[mistake], errors[mistake]), errors[mistake]


def test_there_are_no_others(runs: Runs) -> None:
    assert set(runs.mistakes()[0]) == set(_REFUSED)
