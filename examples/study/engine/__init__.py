"""One run in one process: veRL's worker and losses, without Ray and vLLM."""
