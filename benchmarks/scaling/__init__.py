"""How communication and statistics grow with layers, parameters and ranks."""
