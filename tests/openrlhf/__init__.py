"""OpenRLHF's real classes, in the environment of `make install-openrlhf`, against the oracle."""
