"""A run's records, read from Temporal's own history: no worker is needed for it."""
