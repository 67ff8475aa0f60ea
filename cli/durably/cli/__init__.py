"""The command `durably`. Nothing here is imported by the library; it needs the extra `cli`."""
