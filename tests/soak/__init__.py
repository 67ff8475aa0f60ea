"""A soak: workers on one SQLite file that are killed, stopped and told to end, while runs of every kind are started."""
