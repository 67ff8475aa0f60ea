"""What becomes of runs whose code was changed under them: found out, and ended in Temporal's own way."""
