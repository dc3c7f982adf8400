"""Security of the dashboard, a concept a module: who asks, what they may, and what a browser is told."""
