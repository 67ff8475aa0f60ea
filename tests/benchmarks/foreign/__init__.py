"""One agent on several libraries, crash-tested from outside."""
