"""What every estimator of the variance gives on real batches, against the exact value."""
