"""What PCR costs, measured."""
