"""Streams in one SQLite file: the embedded default. Any number of processes of one machine may share the file.

                     loop                                      threads (each with its own connection)
    append, apply ──► queue ────────────────────────────────► writer        all that waits: ONE transaction
                      deliver ◄── one hand-over per commit ───┘ │ pages written
    load, read … ───► queue ────────────────────────────────► reader  │     short read transactions,
                      deliver ◄── answers, others' news ──────┘       │     the look at others' commits
                                                              checkpointer  WAL → database, off the commit path
    heartbeat's thread ── renew ────────────────────────────► presence      the lease row, the locked file

``schema`` draws the file, ``rows`` turns states into rows, ``faults`` names driver errors, ``worker`` is what the
threads have in common, ``store`` is what the engines see.

Limits: the file system must support shared memory and locks (a local disk, not NFS). A process that is forked
without exec inherits the locked file of its parent, which is then provably dead only when both have ended; its lease
runs out as usual. A store must not be used in such a child.
"""

from playhead.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
