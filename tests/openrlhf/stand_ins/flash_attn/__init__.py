"""Stand-in: what OpenRLHF's modules import of flash-attn, which is built with CUDA.

Packing is index arithmetic and runs on a CPU; ring attention does not.
"""
