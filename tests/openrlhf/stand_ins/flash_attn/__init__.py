"""Stand-in: what OpenRLHF's modules import of flash-attn, which is built with CUDA.

Only packed sequences and ring attention call it, and neither runs on a CPU.
"""
