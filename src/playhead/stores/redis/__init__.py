"""Streams in Redis 6.2 or newer, or Valkey: any number of processes, on any machines, are one system.

    loop                                                            Redis
    append, apply ──► router ──► wire "playhead-write" ───────────► append.lua, commit.lua; claims, lists
    load, read … ───► router ──► wire "playhead-ask" ─────────────► read.lua; states, lists
    watch ◄──────── listener ◄── wire "playhead-listen" ◄────────── wake-ups
    a thread of its own
    renew ──────────► router ──► wire "playhead-ask" ─────────────► the lease; letters about cancels

``store`` is what the engines see; ``creating``, ``claims``, ``lists`` and ``finding`` do what spans several slots;
``states`` reads; ``presence`` keeps the lease; ``check`` is asked at the start; ``address`` takes the URL apart,
``faults`` names errors, ``keys`` makes names. In a cluster there is a "write" and an "ask" for each master.

**Keys.** ``playhead`` stands for the prefix of the URL, ``1`` for the version of this drawing (``keys.FORMAT``).
``<id>``, ``<thread>`` and ``<owner>`` are the text itself, or ``#`` and 22 characters of its digest when it is not
plain and short; ``~`` is nobody. In braces: the hash tag. All of one stream is in one slot; every other name has a slot
of its own, so that it cannot change together with the stream (``claims`` and ``lists`` say what makes up for that).

    playhead:format                       string   the version of what is stored here
    playhead:1:count                      string   the number of the newest stream
                                                   for good, both

    playhead:1:{s:<id>}:state             hash     v: raised by each command, not by appends; live: 1 or 0; epoch;
                                                   tail; size: data bytes; no: its number; info: ``playhead.state``
    playhead:1:{s:<id>}:log               stream   <last offset>-0: p = epoch, b = batch, see ``playhead.entry``
                                                   commit.lua deletes the one and renames the other to:
    playhead:1:{s:<id>}:gone:<no>         stream   what is to be freed: purge does, bit by bit

    playhead:1:streams                    zset     all, by number
    playhead:1:live                       zset     live, by number
    playhead:1:unsettled                  zset     closed and not settled yet, by number
    playhead:1:thread:<thread>            zset     of a thread, by number
    playhead:1:owner:<owner>              zset     of an owner, by number
    playhead:1:owner-live:<owner>         zset     live, of an owner, by number
    playhead:1:due                        zset     by the time of retention's next step
    playhead:1:written-by:<instance>      set      live streams of a producer
                                                   entries go with the change that ends them; what a crash leaves
                                                   there is struck off when it was seen twice, 10 s apart
    playhead:1:garbage                    zset     names of logs to be freed, by time: purge strikes them off

    playhead:1:instances                  zset     by the end of their lease; below zero: a goodbye. ``orphans`` strikes
                                                   off who left nothing, 1 h after a goodbye, 30 days after a lease
    playhead:1:cancels:{playhead:1:instances}:<instance>
                                          set      streams of it that were asked to end: its heartbeat takes them

    playhead:1:request:<owner>:<key>      hash     claim of an idempotency key: v = token, id = stream, by = instance
    playhead:1:live-on:<thread>           hash     claim of a thread, likewise
                                                   go with their stream; one left behind is the next asker's

**Channels.** ``playhead:1:{s:<id>}:events`` says ``<epoch> <last offset> <batch>`` of each append (nothing when the
batch is larger than 32 KiB), ``playhead:1:{s:<id>}:news`` says ``<tail> <size> <state>`` of each command (nothing when
the stream is forgotten). ``playhead:1:{t:<thread>}:begun`` says nothing, when a stream has been made on a thread.
Plain PUBLISH: in a cluster every node hears all of them. Losing one costs time, never an event.

No key has a time to live: what is old goes by retention's commands, under the same rules as in every store.
"""

from playhead.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
