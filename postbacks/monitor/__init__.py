"""Room of the people who run the system: a snapshot of it, metrics for Prometheus, health."""
