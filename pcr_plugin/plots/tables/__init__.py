"""Numbers over runs: means over seeds with their uncertainty, fronts, the report's table."""
