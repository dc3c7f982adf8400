"""What whoever runs the system sees of it: figures, metrics for Prometheus, health."""
