"""Incidents: what stands wrong with a receiver or with the system, found by the process that runs history and told once a change."""
