"""Files: every figure as PNG and SVG, and one HTML page that needs nothing else."""
