"""What the Inngest server tells of runs, by whichever of its interfaces it is asked."""
