"""A dense float64 reference, written from the paper; imports nothing of pcr_plugin."""
