"""Streams in Redis 6.2 or newer, or Valkey: any number of processes, on any machines, are one system.

    loop                                                            Redis
    append, apply ──► router ──► wire "playhead-write" ───────────► append.lua, commit.lua; claims, lists
    load, read … ───► router ──► wire "playhead-ask" ─────────────► read.lua; states, lists
    watch ◄───────── listener ◄── wire "playhead-listen" ◄───────── wake-ups
    a thread of its own
    renew ──────────► router ──► wire "playhead-ask" ─────────────► the lease, letters about cancels

``store`` is what the engines see; ``creating``, ``claims``, ``lists`` and ``finding`` do what spans several slots;
``states`` reads; ``presence`` keeps the lease; ``check`` is asked at the start; ``address`` is the URL, ``faults`` names
errors, ``keys`` makes names. A cluster has a "write" and an "ask" per master.

**Keys.** ``playhead`` stands for the prefix of the URL, ``1`` for the version of this drawing (``keys.FORMAT``). ``<id>``,
``<thread>``, ``<owner>`` are the text itself, or ``#`` and 22 characters of a digest when it is no plain short word;
nobody's owner is ``~``. What is in braces is the hash tag: all of one stream is in one slot. Every other name is a slot
of its own, so nothing can change together with it: see ``claims`` and ``lists`` for the order that makes up for it.

    name                               type    what                                              deleted by
    playhead:format                    string  the newest version that wrote here                nobody
    playhead:1:count                   string  number of the newest stream                       nobody

    playhead:1:{s:<id>}:state          hash    v       raised by every command, not by appends   commit.lua, when the
                                               live    1 or 0, epoch, info (``playhead.state``)  stream is forgotten
                                               tail    newest offset, size: data bytes
                                               no      its number
    playhead:1:{s:<id>}:log            stream  <last offset>-0: p = epoch, b = batch             commit.lua makes it
                                               (``playhead.entry``)                              :gone: at expiry or end
    playhead:1:{s:<id>}:gone:<no>      stream  what is to be freed                               purge, bit by bit

    playhead:1:streams                 zset    all              by number                        each entry by whoever
    playhead:1:live                    zset    live                                              changes the stream; what
    playhead:1:unsettled               zset    closed, and not settled yet                       a crash leaves there is
    playhead:1:thread:<thread>         zset    of a thread                                       struck off when it was
    playhead:1:owner:<owner>           zset    of an owner                                       seen twice, 10 s apart
    playhead:1:owner-live:<owner>      zset    live, of an owner
    playhead:1:due                     zset    by time: retention's next step
    playhead:1:written-by:<instance>   set     live streams of a producer
    playhead:1:garbage                 zset    by time: names of logs to free                    purge

    playhead:1:instances               zset    by the end of their lease; below 0: a goodbye     orphans: 1 h after a
                                                                                                 goodbye, 30 days after
                                                                                                 a lease, nothing left
    playhead:1:cancels:{playhead:1:instances}:<instance>
                                       set     streams that somebody asked to cancel             the heartbeat takes them

    playhead:1:request:<owner>:<key>   hash    claim of an idempotency key                       whoever forgets the
    playhead:1:live-on:<thread>        hash    claim of a thread                                 stream; one left behind
                                               v = token, id = stream, by = instance             is the next asker's

**Channels**, in each stream's name: ``playhead:1:{s:<id>}:events`` says ``<epoch> <last offset> <batch>`` for every append
(nothing when the batch is larger than 32 KiB), ``…:news`` says ``<tail> <size> <state>`` for every command (nothing when
the stream is forgotten). Plain PUBLISH: in a cluster every node hears all. A lost one costs time, not events.

No key has a time to live: what is old goes by retention's commands, decided by the same rules as everywhere.
"""

from playhead.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
