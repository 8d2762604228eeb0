"""Every example is run, smaller, and the numbers of the docs are found in what it gives."""
