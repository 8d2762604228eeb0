"""The real FSDP2 engine of veRL on gloo ranks, against the oracle and against itself."""
