"""Flow control on memory and SQLite: which runs begin now, later or not at all, and how many bodies run at a time.

The rules are applied in the journal's transactions and keep what they know in its `FlowStore`, so that they hold for
all workers of a file and survive each of them.
"""
