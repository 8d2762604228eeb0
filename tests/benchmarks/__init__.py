"""The benchmarks count and measure what they say."""
