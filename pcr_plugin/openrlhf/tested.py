"""Releases that this binding is tested with: it reads attributes that others may not have."""

# Distribution to releases.
TESTED = {"openrlhf": ("0.11.2",), "deepspeed": ("0.19.6",)}
