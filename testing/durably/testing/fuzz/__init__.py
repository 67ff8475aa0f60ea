"""Random durable programs under random faults."""
