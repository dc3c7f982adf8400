"""The measuring: ``make bench``, beside what a user would write or pick instead (docs/benchmarks.md)."""
