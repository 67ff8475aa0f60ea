"""Models for tests: scripted, recorded, and a provider on loopback."""
