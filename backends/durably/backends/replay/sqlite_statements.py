"""The larger statements of a journal in a SQLite file. Tables, and what their columns hold: ``sqlite_file.py``."""

from __future__ import annotations

from durably.backends.replay.sqlite_file import RUN_SHIFT

LIVE = ("running", "waiting", "stuck")
"""The statuses of runs that have not ended."""

RUN = """
SELECT n, id, function, status, parent, singleton, owner, fence, crashes, created_at, root, session_key, tags, ended_at,
    crash_notes, rested
FROM runs
"""

HELD = "status IN ('running', 'stuck')"
"""What the index of owners is for, in these very words."""

OWNED = f"{RUN} WHERE {HELD} AND owner IS ? AND function = ? AND n > ? ORDER BY n LIMIT ?"

# From one owner to the next by the index: the runs between are not read.
OWNERS = f"""
WITH RECURSIVE owners (id) AS (
    SELECT min(owner) FROM runs WHERE {HELD}
    UNION ALL SELECT (SELECT min(owner) FROM runs WHERE {HELD} AND owner > owners.id) FROM owners
    WHERE owners.id IS NOT NULL
) SELECT id FROM owners WHERE id IS NOT NULL
"""

LOST = f"""
SELECT value FROM json_each(?2) AS held
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = held.value AND owner = ?1 AND {HELD})
"""

ENDED = f"""
SELECT value FROM json_each(?1) AS awaited
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = awaited.value AND status IN {LIVE})
"""

# The delay of the code's own retry is over with the next record, which need not be about it.
OPEN = """
SELECT records.* FROM open_steps JOIN records ON records.id = open_steps.id WHERE run = ?1
AND (open_steps.key != '' OR records.id = (SELECT max(id) FROM records WHERE id < ?2)) ORDER BY records.id
"""

LOG_PAGE = "SELECT seq, name, event, at FROM events WHERE seq > ? ORDER BY seq LIMIT ?"

WAITING = "SELECT DISTINCT run FROM open_steps WHERE run > ? ORDER BY run LIMIT ?"

WAITING_FOR = f"""
SELECT runs.id, created_at, max(wait.at), (SELECT input IS NOT NULL FROM records WHERE id = runs.n << {RUN_SHIFT})
FROM open_steps JOIN records AS wait ON wait.id = open_steps.id JOIN runs ON runs.n = open_steps.run
WHERE open_steps.run > ? AND open_steps.run <= ? AND wait.kind = 'wait_for_event' AND wait.status = 'started'
AND wait.name = ? AND runs.status IN {LIVE} GROUP BY runs.n ORDER BY runs.n
"""

# Not simply the next after those that are there: a number that was forgotten is not given again.
INSERT = """
INSERT INTO runs (
    n, id, function, status, parent, singleton, owner, fence, crashes, created_at, root, session_key, tags, ended_at
) VALUES (
    1 + max(coalesce((SELECT max(n) FROM runs), 0), coalesce((SELECT max(n) FROM forgotten), 0)),
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
)
"""
FUNCTIONS = "SELECT id, triggers, singleton, rules FROM functions ORDER BY id"

APPEND = """
INSERT INTO records SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14
WHERE EXISTS (
    SELECT 1 FROM runs WHERE n = ?15 AND fence = ?16 AND status IN ('running', 'waiting', 'stuck', 'skipped')
) AND (?1 & 16777215 = 0 OR EXISTS (SELECT 1 FROM records WHERE id = ?1 - 1))
"""
