"""Checks whose message is worded for more than one host."""

import pytest

from pcr_plugin.config.checks import refuse_unread


def test_what_probes_do_not_read_is_named_under_the_users_key() -> None:
    refuse_unread([])
    with pytest.raises(ValueError, match=r"--actor\.estimator='sequence'.*a, b, c, d and 1 more"):
        refuse_unread(["a", "b", "c", "d", "e"], "--actor.estimator")
