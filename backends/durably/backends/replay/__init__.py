"""The replay engine: a journal, a scheduler, and a driver that takes a run's code over its records."""
