"""veRL's real Megatron engine on gloo ranks, against the oracle and against itself."""
