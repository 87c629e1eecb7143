"""The faults that ``mutants.py`` plants. Each: what goes wrong, where, and the tests that must notice."""

from typing import NamedTuple


class Fault(NamedTuple):
    """``old`` occurs exactly once in ``file`` (below src/playhead); ``tests`` are pytest node ids, as few as do."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


DECISIONS = "tests/test_log.py::test_table_of_decisions"
APPENDS = "tests/test_log.py::test_p2_table_of_appends"
CURSORS = "tests/test_log.py::test_p2_table_of_cursors"
MODEL = "tests/test_stores.py::TestMemoryModel"
SUITE = "tests/test_stores.py::TestMemory::"

RULES = [
    Fault(
        "a stored cancel does not decide the outcome",
        "log.py",
        "    if state.cancel:\n        reason",
        "    if state.cancel and outcome.error:\n        reason",
        [SUITE + "test_p4_stored_cancel_decides_the_outcome"],
    ),
    Fault(
        "a take-over leaves the epoch as it is",
        "log.py",
        "producer=command.producer, epoch=state.epoch + 1",
        "producer=command.producer, epoch=state.epoch",
        [SUITE + "test_p6_a_fenced_producer_can_neither_append_nor_close"],
    ),
    Fault(
        "closing for a dead producer leaves the epoch as it is",
        "log.py",
        "state.but(epoch=state.epoch + 1), PRODUCER_LOST, facts.now)\n        case RequestCancel",
        "state, PRODUCER_LOST, facts.now)\n        case RequestCancel",
        [SUITE + "test_p5_a_lease_that_ran_out"],
    ),
    Fault(
        "a living producer's stream can be closed as dead",
        "log.py",
        "if state.producer is None or facts.producer_alive:",
        "if state.producer is None:",
        [SUITE + "test_p6_expiry_alone_only_permits"],
    ),
    Fault(
        "a stream between two writers is taken for dead",
        "log.py",
        "if state.producer is None or facts.producer_alive:",
        "if facts.producer_alive:",
        [SUITE + "test_released_streams_are_not_dead"],
    ),
    Fault(
        "a living producer's stream can be claimed",
        "log.py",
        "if facts.producer_alive and not command.take_over:",
        "if False and not command.take_over:",
        [SUITE + "test_claim_needs_a_free_stream"],
    ),
    Fault(
        "gaps are stored",
        "log.py",
        "    if first != head.tail + 1:",
        "    if first <= head.tail:",
        [SUITE + "test_p2_gaps_are_refused"],
    ),
    Fault(
        "the newest batch is stored twice when it is retried",
        "log.py",
        "    if last <= head.tail:",
        "    if last < head.tail:",
        [APPENDS],
    ),
    Fault(
        "an old epoch may append",
        "log.py",
        "    if head.epoch != epoch:",
        "    if head.epoch < epoch:",
        [SUITE + "test_p6_a_fenced_producer_can_neither_append_nor_close"],
    ),
    Fault(
        "a closed stream takes events",
        "log.py",
        "    if not head.is_live:",
        "    if not head.is_live and first == 1:",
        [SUITE + "test_p7_nothing_follows_a_close"],
    ),
    Fault(
        "a stream holds one byte too few",
        "log.py",
        "head.size_bytes + size_bytes > stream_max_bytes",
        "head.size_bytes + size_bytes >= stream_max_bytes",
        [SUITE + "test_a_stream_holds_so_many_bytes"],
    ),
    Fault(
        "a second close changes the outcome",
        "log.py",
        "            if not state.is_live and state.epoch == epoch:\n                return state",
        "            if not state.is_live and state.epoch == epoch:\n                return _closed(state, outcome, 0)",
        [SUITE + "test_p7_the_first_close_stays"],
    ),
    Fault(
        "a cancelled stream with a dead producer stays live",
        "log.py",
        "    if facts.producer_alive:\n        return asked",
        "    if asked is not state:\n        return asked",
        [SUITE + "test_p4_cancel_of_a_dead_producer_closes"],
    ),
    Fault(
        "a second cancel replaces the first",
        "log.py",
        "asked = state if state.cancel else state.but(cancel=cancel)",
        "asked = state.but(cancel=cancel)",
        [SUITE + "test_p4_the_first_cancel_stays"],
    ),
    Fault(
        "another owner's stream is given away by its id",
        "log.py",
        "if state.owner != command.owner:",
        "if state.owner is None:",
        [SUITE + "test_p12_another_owners_id_is_taken"],
    ),
    Fault(
        "the owner's limit lets one more in",
        "log.py",
        "facts.live_of_owner >= command.live_per_owner_max",
        "facts.live_of_owner > command.live_per_owner_max",
        [SUITE + "test_racing_creates_keep_to_the_limit"],
    ),
    Fault(
        "retention takes what is not settled",
        "log.py",
        "if not state.settled and now < give_up_at:",
        "if not state.settled and now > give_up_at:",
        [SUITE + "test_p7_what_is_not_settled_is_kept"],
    ),
    Fault(
        "release forgets a stored cancel",
        "log.py",
        "            if state.cancel:\n                return _closed",
        "            if state.cancel and not facts.producer_alive:\n                return _closed",
        [SUITE + "test_p4_release_obeys_a_stored_cancel"],
    ),
    Fault(
        "a reader of lost events is not told",
        "log.py",
        "if epoch_there is None or not epoch_there <= cursor.epoch <= state.epoch:",
        "if epoch_there is None:",
        [CURSORS],
    ),
    Fault(
        "a cursor at the close is taken for ahead",
        "log.py",
        "cursor.offset == state.tail + 1 and state.outcome:",
        "cursor.offset == state.tail and state.outcome:",
        [CURSORS],
    ),
    Fault(
        "a command that no rule knows deletes the stream",
        "log.py",
        "    assert_never(command)  # what no rule knows must not pass for a Delete",
        "    return None",
        ["tests/test_log.py::test_table_of_unknown_commands"],
    ),
]

WORDS = [
    Fault(
        "the rest of a batch begins one event early",
        "model.py",
        "cut = offset - self.first + 1",
        "cut = offset - self.first",
        ["tests/test_model.py::test_p2_the_rest_of_a_batch"],
    ),
    Fault(
        "a cursor of a deleted stream fits its successor",
        "model.py",
        'f"{created_at!r} {stream_id}"',
        'f"{stream_id}"',
        ["tests/test_model.py::test_p2_marks_belong_to_one_stream_ever"],
    ),
    Fault(
        "a cursor may hold a number that no store can",
        "model.py",
        "n.isdigit() and len(n) <= 18",
        "n.isdigit()",
        ["tests/test_model.py::test_p2_garbage_is_no_cursor"],
    ),
    Fault(
        "lone surrogates are lost",
        "model.py",
        'return Draft(TEXT, item.encode("utf-8", "surrogatepass"))',
        'return Draft(TEXT, item.encode("utf-8", "replace"))',
        ["tests/test_model.py::test_p1_text_comes_back"],
    ),
    Fault(
        "a state's cursor leaves out the close",
        "model.py",
        "self.tail + (self.outcome is not None)",
        "self.tail",
        ["tests/test_model.py::test_a_states_cursor_includes_the_close"],
    ),
    Fault(
        "an entry with bytes missing is taken for whole",
        "entry.py",
        "if borders[-1] != len(entry) or",
        "if borders[-1] < len(entry) or",
        ["tests/test_entry.py::test_an_entry_truncated_anywhere_is_corrupt"],
    ),
    Fault(
        "an entry of a newer version is read as this one",
        "entry.py",
        "if version != VERSION:",
        "if version > 100:",
        ["tests/test_entry.py::test_other_versions_are_named"],
    ),
    Fault(
        "types of one batch are mixed up",
        "entry.py",
        "for index in entry[at : at + count]]",
        "for index in sorted(entry[at : at + count])]",
        [SUITE + "test_p1_a_batch_may_hold_255_types"],
    ),
]

MEMORY = [
    Fault(
        "pages are not bounded",
        "stores/memory.py",
        "if batches and size_bytes + len(entry) > PAGE_MAX_BYTES:",
        "if batches and size_bytes < 0:",
        [SUITE + "test_p8_pages_are_bounded_in_bytes"],
    ),
    Fault(
        "a page begins with a batch that the reader has",
        "stores/memory.py",
        "bisect_right(entries.lasts, after)",
        "bisect_right(entries.lasts, after - 1)",
        [SUITE + "test_p2_from_any_place"],
    ),
    Fault(
        "only the first watcher is woken",
        "watchers.py",
        "in tuple(wakes.values()):",
        "in tuple(wakes.values())[:1]:",
        [SUITE + "test_every_watcher_is_woken"],
    ),
    Fault(
        "watchers are not told of states",
        "stores/memory.py",
        "        self._data.watchers.tell(stream_id, None, new)\n",
        "",
        [SUITE + "test_p4_other_instances_news_of_the_state_arrive"],
    ),
    Fault(
        "nobody is told that a stream was made on a thread",
        "stores/memory.py",
        "            self._data.thread_watchers.tell(new.thread_id)\n",
        "            pass\n",
        [SUITE + "test_own_streams_on_a_thread_wake"],
    ),
    Fault(
        "a closed instance keeps its lease",
        "stores/memory.py",
        "self._shared.leases.pop(self.instance_id, None)",
        "self._shared.leases.get(self.instance_id, None)",
        [SUITE + "test_p5_an_instance_that_said_goodbye_is_known_dead"],
    ),
    Fault(
        "an instance sweeps its own streams",
        "stores/memory.py",
        "if producer is None or producer == self.instance_id:",
        "if producer is None:",
        [SUITE + "test_p6_nobodys_own_streams_are_orphans"],
    ),
    Fault(
        "a batch that cannot be packed leaves half an entry",
        "stores/memory.py",
        "        entry = pack(batch)\n        entries = self._data.entries[lease.stream_id]\n"
        "        entries.lasts.append(batch.last)\n",
        "        entries = self._data.entries[lease.stream_id]\n"
        "        entries.lasts.append(batch.last)\n        entry = pack(batch)\n",
        [SUITE + "test_p1_a_batch_that_fits_no_entry_changes_nothing"],
    ),
    Fault(
        "a deleted stream's events come back under its id",
        "stores/memory.py",
        "data.garbage.append(data.entries.pop(stream_id, _Entries()))",
        "data.garbage.append(data.entries.get(stream_id, _Entries()))",
        [SUITE + "test_a_name_used_again_begins_empty"],
    ),
    Fault(
        "a forgotten stream keeps its thread",
        "stores/memory.py",
        "                del data.threads[old.thread_id]",
        "                data.threads[old.thread_id] = stream_id",
        [SUITE + "test_a_thread_has_one_live_stream"],
    ),
    Fault(
        "purge does not stop at its limit",
        "stores/memory.py",
        "cut = min(len(rows), limit - freed)",
        "cut = len(rows)",
        [SUITE + "test_purge_frees_a_little_at_a_time"],
    ),
    Fault(
        "the oldest streams are found first",
        "stores/memory.py",
        "in reversed(self._data.states.values()):",
        "in list(self._data.states.values()):",
        [SUITE + "test_newest_first"],
    ),
]

SQLITE_SUITE = "tests/test_stores.py::TestSQLite::"
SQLITE = [
    Fault(
        "the second append of a transaction does not see the first",
        "stores/sqlite/writer.py",
        "            heads[append.stream_id], row = decided\n",
        "            _, row = decided\n",
        [SQLITE_SUITE + "test_p2_appends_handed_over_together_keep_their_order"],
    ),
    Fault(
        "the short way does not ask whether a command came between",
        "stores/sqlite/writer.py",
        "WHERE s.no IS NULL OR h.column3",
        "WHERE s.no IS NOT NULL AND h.column3",
        [SQLITE_SUITE + "test_p6_a_fenced_producer_can_neither_append_nor_close"],
    ),
    Fault(
        "the short way does not ask for the last place",
        "stores/sqlite/writer.py",
        "WHERE s.no IS NULL OR h.column3 <> ifnull({rows.LAST_PLACE}, s.no << {OFFSET_BITS}))",
        "WHERE s.no IS NULL)",
        ["tests/test_sqlite_store.py::test_p2_one_lease_in_two_processes_tears_no_hole"],
    ),
    Fault(
        "an idempotency key is not looked up",
        "stores/sqlite/writer.py",
        "if isinstance(command, Create) and command.idempotency_key is not None:",
        "if isinstance(command, Create) and row is not None:",
        [SQLITE_SUITE + "test_create_with_a_known_key_goes_to_that_stream"],
    ),
    Fault(
        "everybody with a row is taken for alive",
        "stores/sqlite/writer.py",
        "WHERE id = ? AND expires_at > ?",
        "WHERE id = ? AND expires_at > -?",
        [SQLITE_SUITE + "test_p5_streams_of_a_dead_producer_can_be_claimed"],
    ),
    Fault(
        "an expired stream's entries are never freed",
        "stores/sqlite/writer.py",
        "if row and new.status is Status.EXPIRED:",
        "if row and new.status is Status.LIVE:",
        [SQLITE_SUITE + "test_purge_takes_expired_and_forgotten_streams"],
    ),
    Fault(
        "a page and its state are of two moments",
        "stores/sqlite/queries.py",
        '    connection.execute("BEGIN")  # state and entries of one moment\n',
        "",
        ["tests/test_sqlite_store.py::test_p2_what_is_committed_in_the_middle_of_a_read_is_not_in_its_page"],
    ),
    Fault(
        "a page of the embedded store is not bounded",
        "stores/sqlite/queries.py",
        "if batches and size_bytes > PAGE_MAX_BYTES:",
        "if batches and size_bytes < 0:",
        [SQLITE_SUITE + "test_p8_pages_are_bounded_in_bytes"],
    ),
    Fault(
        "a place before the first event leads into other streams",
        "stores/sqlite/queries.py",
        "place | max(after, 0)",
        "place | after",
        [SQLITE_SUITE + "test_p12_no_place_leads_into_another_stream"],
    ),
    Fault(
        "a sweeper finds its own streams",
        "stores/sqlite/queries.py",
        "s.status = 'live' AND s.producer != :own AND (",
        "s.status = 'live' AND :own = :own AND (",
        [SQLITE_SUITE + "test_p6_nobodys_own_streams_are_orphans"],
    ),
    Fault(
        "what others commit is not noticed",
        "stores/sqlite/store.py",
        "                self._told[item.stream_id] = item.mark\n"
        "                self._watchers.tell(item.stream_id, item.batch, item.info)\n",
        "                self._told[item.stream_id] = item.mark\n",
        [SQLITE_SUITE + "test_watching_what_does_not_exist_yet"],
    ),
    Fault(
        "streams that others begin on a thread are not noticed",
        "stores/sqlite/reader.py",
        "        begun = self._begun() if self._threads else []\n",
        "        begun: list[Begun] = []\n",
        [SQLITE_SUITE + "test_other_instances_streams_on_a_thread_wake_at_once"],
    ),
    Fault(
        "a stream that begins before the first look at threads is missed",
        "stores/sqlite/reader.py",
        "            return [Begun(thread_id, self._newest) for thread_id in self._threads.values()]\n",
        "            return []\n",
        [SQLITE_SUITE + "test_who_watches_first_and_then_looks_misses_no_stream"],
    ),
    Fault(
        "a stream is told of to all threads",
        "stores/sqlite/reader.py",
        "[Begun(self._threads[column], no) for no, column in found if column in self._threads]",
        "[Begun(thread_id, self._newest) for thread_id in self._threads.values()]",
        [SQLITE_SUITE + "test_only_streams_that_begin_on_the_thread_wake"],
    ),
    Fault(
        "a thread is looked for by what its column does not say",
        "stores/sqlite/reader.py",
        "column = rows.column(item.thread_id)",
        "column = item.thread_id",
        ["tests/test_sqlite_store.py::test_texts_that_sqlite_cannot_hold"],
    ),
    Fault(
        "own streams on a thread are left to the look",
        "stores/sqlite/store.py",
        "                self._tell_begun(item.info.thread_id, mark.no)\n",
        "                pass\n",
        ["tests/test_sqlite_store.py::test_p9_own_streams_on_a_thread_are_told_of_once"],
    ),
    Fault(
        "own streams on a thread are told of twice",
        "stores/sqlite/store.py",
        "            self._begun[thread_id] = no\n",
        "",
        ["tests/test_sqlite_store.py::test_p9_own_streams_on_a_thread_are_told_of_once"],
    ),
    Fault(
        "threads that nobody watches are looked at",
        "stores/sqlite/reader.py",
        "            self._threads.pop(column, None)\n            return\n",
        "            return\n",
        ["tests/test_sqlite_store.py::test_p9_nothing_watched_is_nothing_looked_at"],
    ),
    Fault(
        "an append returns before its watchers are woken",
        "stores/sqlite/store.py",
        "            self._told[item.stream_id] = mark\n"
        "            self._watchers.tell(item.stream_id, item.batch, item.info)\n",
        "            self._told[item.stream_id] = mark\n"
        "            asyncio.get_running_loop().call_later(\n"
        "                0.05, self._watchers.tell, item.stream_id, item.batch, item.info\n"
        "            )\n",
        [SQLITE_SUITE + "test_p1_watchers_are_woken_before_the_append_returns"],
    ),
]

PRODUCER, READER, RETENTION = "tests/test_producer.py::", "tests/test_reader.py::", "tests/test_retention.py::"
STREAMS, ASGI, SSE = (f"tests/test_{name}.py::" for name in ("streams", "asgi", "sse"))
ENGINES = [
    Fault(
        "a lost answer makes the producer skip what it stored",
        "producer.py",
        "(self._failing_since is not None and isinstance(error, AppendRepeat))",
        "False",
        [PRODUCER + "test_p1_an_append_whose_answer_was_lost_is_stored_once"],
    ),
    Fault(
        "the source is never made to wait",
        "producer.py",
        "            if self.is_crowded:\n                await self.room()\n",
        "",
        [PRODUCER + "test_p8_a_source_that_never_suspends_neither_blocks_the_loop_nor_fills_memory"],
    ),
    Fault(
        "a source that ignores its cancellation is waited for",
        "producer.py",
        "self._grace = asyncio.get_running_loop().call_later(self._options.cancel_grace_s, self._abandon)",
        "self._grace = asyncio.get_running_loop().call_later(1e6, self._abandon)",
        [STREAMS + "test_p4_a_source_that_ignores_cancellation_is_abandoned_and_fenced"],
    ),
    Fault(
        "a cancel that was stored before the watch is missed",
        "producer.py",
        "        self._wake(None, None)\n",
        "",
        [STREAMS + "test_p4_a_cancel_that_is_stored_before_the_producer_watches_is_obeyed"],
    ),
    Fault(
        "what was pending at the end is not flushed",
        "producer.py",
        "            try:\n                await self.flush()\n            except PlayheadError as error:\n"
        "                if outcome.kind",
        "            try:\n                pass\n            except PlayheadError as error:\n"
        "                if outcome.kind",
        [PRODUCER + "test_p1_everything_survives_as_it_was_yielded"],
    ),
    Fault(
        "a page is not cut at the reader's place",
        "reader.py",
        "batches = [batches[0].after(self._position), *batches[1:]]",
        "batches = [batches[0], *batches[1:]]",
        [READER + "test_p2_from_every_cursor_exactly_the_rest"],
    ),
    Fault(
        "the cursor's epoch is not compared",
        "reader.py",
        "    check_cursor(page.info, start, there)\n",
        "",
        [READER + "test_p2_bad_cursors_are_named"],
    ),
    Fault(
        "what readers share is never forgotten",
        "feed.py",
        "        while self._size_bytes > self._max_bytes:\n",
        "        while False:\n",
        [READER + "test_p8_memory_for_readers_is_bounded"],
    ),
    Fault(
        "a reader who leaves keeps its slot",
        "feed.py",
        "        feed.readers -= 1\n        self.counts[principal] -= 1\n",
        "        feed.readers -= 1\n",
        [READER + "test_readers_per_owner_are_limited_and_slots_come_back"],
    ),
    Fault(
        "a new sweeper trusts leases at once",
        "retention.py",
        "self._trust_leases_at = monotonic() + options.lease_s",
        "self._trust_leases_at = monotonic()",
        [RETENTION + "test_p6_a_new_sweeper_waits_one_lease_before_it_trusts_others_leases"],
    ),
    Fault(
        "a clock that jumped is trusted",
        "retention.py",
        "            self._trust_leases_at = now + self._options.lease_s\n",
        "            pass\n",
        [RETENTION + "test_p6_a_sweeper_that_sees_the_clock_jump_waits_one_lease"],
    ),
    Fault(
        "strangers may read",
        "streams.py",
        "        if not await self._allowed(principal, verb, info):\n",
        '        if verb != "read" and not await self._allowed(principal, verb, info):\n',
        [STREAMS + "test_p12_strangers_are_told_that_it_does_not_exist"],
    ),
    Fault(
        "the caller's cancellation reaches the work",
        "streams.py",
        "        return await asyncio.shield(self._spawn(work))\n",
        "        return await self._spawn(work)\n",
        ["tests/test_cancellation.py::test_p10_what_a_cancelled_start_began_is_carried_out"],
    ),
    Fault(
        "a keep-alive forms an event",
        "sse.py",
        'KEEP_ALIVE = b": keep-alive\\n"',
        'KEEP_ALIVE = b"data: keep-alive\\n\\n"',
        [ASGI + "test_h5_keep_alives_come_only_when_idle_and_form_no_event"],
    ),
    Fault(
        "bytes that are not text are shown as text",
        "sse.py",
        """return f'"{base64.b64encode(data).decode()}","encoding":"base64"'""",
        """return json.dumps(data.decode("utf-8", "replace"))""",
        [SSE + "test_h1_every_byte_survives"],
    ),
]

THREADS = "tests/test_conversations.py::"
FOLLOW = "tests/test_server_follow.py::"
NEWS = "tests/test_news.py::"
COALESCE = "tests/test_coalesce.py::"

SERVER = [
    Fault(
        "an answer stands before its question",
        "conversations/threads.py",
        '"position": place + 1',
        '"position": place - 1',
        [THREADS + "test_racing_settlers_settle_once_and_a_late_one_keeps_its_place[file]"],
    ),
    Fault(
        "a stranger's message moves a thread",
        "conversations/threads.py",
        "where=and_(threads.c.owner == made.excluded.owner, threads",
        "where=and_(threads",
        [THREADS + "test_strangers_find_nothing[file]"],
    ),
    Fault(
        "a late settle brings a deleted thread back",
        "conversations/threads.py",
        "where=and_(threads.c.owner == made.excluded.owner, threads.c.deleted_at.is_(None))",
        "where=threads.c.owner == made.excluded.owner",
        [THREADS + "test_a_deleted_thread_stays_deleted[file]"],
    ),
    Fault(
        "a deleted thread's entries stay",
        "conversations/threads.py",
        "                connection.execute(delete(entries).where(entries.c.thread_id == thread_id))\n",
        "                pass\n",
        [THREADS + "test_a_deleted_thread_stays_deleted[file]"],
    ),
    Fault(
        "last activity moves back",
        "conversations/threads.py",
        "case((later > newest, later), else_=newest)",
        "later",
        [THREADS + "test_a_thread_is_made_once_and_its_time_never_moves_back[file]"],
    ),
    Fault(
        "search knows wildcards",
        "conversations/threads.py",
        "entries.c.search_key.contains(key, autoescape=True)",
        "entries.c.search_key.contains(key)",
        [THREADS + "test_search_knows_no_wildcards_and_no_case[file]"],
    ),
    Fault(
        "a cancelled caller takes its operation along",
        "conversations/database.py",
        "await asyncio.shield(asyncio.get_running_loop().run_in_executor(threads, way, work))",
        "await asyncio.get_running_loop().run_in_executor(threads, way, work)",
        [THREADS + "test_what_a_cancelled_caller_began_is_carried_out[file]"],
    ),
    Fault(
        "a joined frame tells the cursor of its first event",
        "sse.py",
        "cursor_prefix(info.mark, one.epoch)}{one.offset}",
        "cursor_prefix(info.mark, one.epoch)}{one.first}",
        [COALESCE + "test_from_any_cursor_that_was_handed_out_the_rest_follows_exactly"],
    ),
    Fault(
        "joined frames have no limit",
        "sse.py",
        " or size + len(text) > JOINED_MAX_CHARACTERS",
        "",
        [COALESCE + "test_a_frame_has_a_limit[memory]"],
    ),
    Fault(
        "a stranger's stream on a followed thread is told of",
        "many.py",
        "        is_told = not found\n",
        "        is_told = True\n",
        [FOLLOW + "test_strangers_streams_are_not_told_of"],
    ),
    Fault(
        "a thread that was woken is not looked at",
        "news.py",
        "                await self._tell_of(woken)\n",
        "                await asyncio.sleep(0)\n",
        [FOLLOW + "test_what_begins_in_another_process_is_followed_within_half_a_second"],
    ),
    Fault(
        "a wake-up that was lost is not made up for",
        "news.py",
        "            if await self._tell_of(tuple(self._told)):\n",
        "            if await self._tell_of(()):\n",
        [NEWS + "test_a_lost_wake_up_is_healed_by_the_look_now_and_then"],
    ),
    Fault(
        "wake-ups keep the look at all threads away",
        "news.py",
        "while loop.time() < look_at and await",
        "while await",
        [NEWS + "test_no_number_of_wake_ups_keeps_the_look_now_and_then_away"],
    ),
    Fault(
        "each wake-up puts the look at all threads off",
        "news.py",
        "                await self._tell_of(woken)\n",
        "                await self._tell_of(woken)\n                look_at = loop.time() + LOOK_EVERY_S\n",
        [NEWS + "test_no_number_of_wake_ups_keeps_the_look_now_and_then_away"],
    ),
    Fault(
        "each wake-up is a look at all threads",
        "news.py",
        "                await self._tell_of(woken)\n",
        "                await self._tell_of(tuple(self._told))\n",
        [NEWS + "test_what_wakes_during_a_look_is_looked_at_after_it"],
    ),
    Fault(
        "a look that failed counts",
        "news.py",
        "                return False\n            fresh",
        "                return True\n            fresh",
        [NEWS + "test_an_outage_longer_than_the_look_back_costs_no_stream"],
    ),
    Fault(
        "a look that failed is the last one",
        "news.py",
        "            except PlayheadError as error:\n",
        "            except ZeroDivisionError as error:\n",
        [NEWS + "test_after_an_outage_the_next_look_comes"],
    ),
    Fault(
        "a look at some threads counts for all",
        "news.py",
        "                await self._tell_of(woken)\n",
        "                await self._tell_of(woken)\n                self._since = self._store.now()\n",
        [NEWS + "test_looks_at_some_threads_do_not_make_others_old"],
    ),
    Fault(
        "a thread that nobody follows any more stays watched",
        "news.py",
        "            self._watches.pop(thread_id)()\n",
        "            self._watches.pop(thread_id)\n",
        [NEWS + "test_nothing_new_is_nothing_looked_at"],
    ),
    Fault(
        "a draining server keeps those who follow threads",
        "news.py",
        "            tell(None)\n",
        "            pass\n",
        [FOLLOW + "test_a_draining_server_ends_the_response_at_once"],
    ),
]

RSUITE = "tests/test_stores.py::TestRedis::"
RMODEL = "tests/test_stores.py::TestRedisModel"
RSTORE = "tests/test_redis_store.py::"
RSTEPS = "tests/test_redis_steps.py::"
RCHECK = "tests/test_redis_check.py::"
FAULTY = "tests/test_redis_faults.py::"
LOST = "tests/test_lost_events.py::"

REDIS = [
    Fault(
        "redis: an old epoch may append",
        "stores/redis/append.lua",
        "if state[1] ~= epoch then return",
        "if not state[1] then return",
        [RSUITE + "test_p6_a_fenced_producer_can_neither_append_nor_close"],
    ),
    Fault(
        "redis: an append may leave a gap",
        "stores/redis/append.lua",
        "if ARGV[2] - tail ~= 1 or last - tail < 1 then",
        "if last - tail < 1 then",
        [RMODEL],
    ),
    Fault(
        "redis: a closed stream takes appends",
        "stores/redis/append.lua",
        "if state[2] ~= '1' then",
        "if state[2] == 'x' then",
        [RMODEL],
    ),
    Fault(
        "redis: a commit does not look at the version",
        "stores/redis/commit.lua",
        "~= ARGV[1] then return false end",
        "== nil then return false end",
        [RMODEL],
    ),
    Fault(
        "redis: a silent server is waited for",
        "stores/redis/wire.py",
        "if self._waiting and self._loop.time() - self.heard_at > REPLY_MAX_S:",
        "if False:",
        [FAULTY + "test_half_open"],
    ),
    Fault(
        "redis: a flushed script is an error",
        "stores/redis/router.py",
        'if kind == "NOSCRIPT" and self._script is not None:',
        'if kind == "NOSCRIPT!":',
        [FAULTY + "test_scripts_flushed_in_mid_stream"],
    ),
    Fault(
        "redis: what is lost with a connection is not told",
        "stores/redis/wire.py",
        "        for reply in waiting:\n            reply(over)\n",
        "",
        [FAULTY + "test_connections_killed_in_mid_stream[normal]"],
    ),
    Fault(
        "redis: a lease goes by this machine's clock",
        "stores/redis/presence.py",
        "        self._ahead_s = redis_s - (asked_at + time.monotonic()) / 2",
        "        pass",
        [RSTORE + "test_leases_go_by_the_clock_of_redis_alone"],
    ),
    Fault(
        "redis: the heartbeat sees no cancels",
        "stores/redis/presence.py",
        "        if found:\n            self._cancelled(",
        "        if False:\n            self._cancelled(",
        [RSTORE + "test_the_heartbeat_alone_sees_a_cancel"],
    ),
    Fault(
        "redis: a claim of a maker who died stands for ever",
        "stores/redis/claims.py",
        " and time.monotonic() - since < CLAIM_MAX_S and not await self._is_gone(maker):",
        ":",
        [RSTEPS + "test_making_a_stream[dies]"],
    ),
    Fault(
        "redis: a live stream's state hears nothing",
        "stores/redis/commit.lua",
        "    redis.call('PUBLISH', ARGV[2], hint)\n",
        "",
        [RSTORE + "test_a_cancel_is_signalled_within_50_ms"],
    ),
    Fault(
        "redis: a forgotten stream's log stays",
        "stores/redis/store.py",
        "        loses_log = old.status is not Status.EXPIRED and (new is None or new.status is Status.EXPIRED)",
        "        loses_log = False",
        [RSTORE + "test_an_expired_stream_leaves_nothing_to_be_freed_when_it_is_forgotten"],
    ),
    Fault(
        "redis: garbage for what has no log",
        "stores/redis/store.py",
        "old.status is not Status.EXPIRED and (new is None or new.status is Status.EXPIRED)",
        "new is None or new.status is Status.EXPIRED",
        [RSTORE + "test_an_expired_stream_leaves_nothing_to_be_freed_when_it_is_forgotten"],
    ),
    Fault(
        "redis: databases hear each other",
        "stores/redis/keys.py",
        'f"{name}:{database}" if database else name',
        "name",
        [RSTORE + "test_databases_of_one_redis_do_not_hear_of_each_other"],
    ),
    Fault(
        "redis: databases hear of each other's threads",
        "stores/redis/keys.py",
        'f"{name}:{database}" if database else name',
        "name",
        [RSTORE + "test_databases_of_one_redis_do_not_hear_of_each_others_threads"],
    ),
    Fault(
        "redis: nobody is told that a stream was made on a thread",
        "stores/redis/commit.lua",
        "if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], '') end\n",
        "",
        [RSUITE + "test_other_instances_streams_on_a_thread_wake_at_once"],
    ),
    Fault(
        "redis: it is told before the stream is there",
        "stores/redis/creating.py",
        "        reply = await COMMIT.ask(\n",
        '        await self._router.ask(WRITE, begun, "PUBLISH", begun, "")\n'
        '        begun = b""\n        reply = await COMMIT.ask(\n',
        [RSTORE + "test_a_stream_is_made_and_told_of_in_one_step"],
    ),
    Fault(
        "redis: who waits for a stream misses what began while nobody listened",
        "stores/redis/store.py",
        "            self._thread_watchers.tell(name)\n",
        "            hint and self._thread_watchers.tell(name)\n",
        [RSTORE + "test_who_waits_for_a_stream_is_woken_when_the_connection_is_back"],
    ),
    Fault(
        "redis: threads are not listened to after close and open",
        "stores/redis/store.py",
        "            self._listen_to(keys.begun(thread_id), thread_id)\n",
        "            pass\n",
        [RSUITE + "test_a_watch_of_a_thread_outlasts_close_and_open"],
    ),
    Fault(
        "redis: threads are listened to for good",
        "stores/redis/store.py",
        "gone=lambda: self._unlisten_to(channel))",
        "gone=None)",
        [RSTORE + "test_never_more_than_four_connections[1]"],
    ),
    Fault(
        "redis: a user who may not hear of threads is let in",
        "stores/redis/check.py",
        '        (begun, ["PUBLISH", begun, ""]),\n',
        "",
        [RCHECK + "test_keys_and_channels_that_are_out_of_reach[channels of streams only]"],
    ),
    Fault(
        "redis: nothing is listed again",
        "stores/redis/store.py",
        "                    await self._list_again()\n",
        "                    pass\n",
        [LOST + "test_p5_lists_and_claims_that_were_lost_are_made_again"],
    ),
    Fault(
        "redis: eviction is not looked at",
        "stores/redis/check.py",
        'if policy.startswith("allkeys-") and',
        'if policy == "x" and',
        [RCHECK + "test_a_redis_that_may_evict_streams_is_refused_unless_allowed"],
    ),
    Fault(
        "redis: names in a URL are not decoded",
        "stores/redis/address.py",
        '(unquote(part) for part in credentials.partition(":"))',
        '(part for part in credentials.partition(":"))',
        [RCHECK + "test_every_form_of_url"],
    ),
    Fault(
        "what was appended lately is not kept",
        "producer.py",
        "                    self._recent.add(batch)\n",
        "                    pass\n",
        [LOST + "test_p1_what_the_store_lost_is_appended_again"],
    ),
    Fault(
        "a close that the store lost is not made again",
        "streams.py",
        "                elif end.outcome and self._store.replay_s:",
        "                elif False:",
        [LOST + "test_p5_a_close_that_the_store_lost_is_made_again"],
    ),
    Fault(
        "a sweeper back from an outage trusts leases at once",
        "retention.py",
        "max(self._trust_leases_at, self._steady_since() + self._options.lease_s)",
        "self._trust_leases_at",
        [FAULTY + "test_who_comes_back_first_does_not_judge_the_others"],
    ),
]

FAULTS = [*RULES, *WORDS, *MEMORY, *SQLITE, *ENGINES, *SERVER, *REDIS]
