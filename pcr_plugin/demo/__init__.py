"""`pcr demo`: a model of a million weights learns to read and to calculate, then GRPO with PCR.

Everything is real but the size: veRL's `main_ppo`, Ray, FSDP2, vLLM, reasoning-gym's tasks and
verifiers. Only `pcr_plugin.cli.demo` imports this package.
"""
