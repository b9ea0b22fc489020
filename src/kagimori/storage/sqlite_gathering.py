"""
Reads that tasks of one loop ask for in one turn, answered together.

Rules of this module:

1. Every statement lets go of the interpreter and takes it back several times, and the thread
   that writes takes it in between. One statement for all that wait costs a fraction of one each.
2. Nobody is left waiting: whatever happens here, every question is answered.
3. Each question has an error of its own: one that several tasks raise mixes their tracebacks.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from kagimori.clock import Clock
from kagimori.errors import StoreError
from kagimori.storage import sqlite_faults, sqlite_reads
from kagimori.storage.sqlite_reads import Keys, Row, Shape
from kagimori.storage.store import Loaded

Parameters = Sequence[object]

MOST_TOGETHER: Final = 16
"""How many questions one statement answers; each number of them is a statement to prepare."""


class _Question:
    """
    One call, and where its answer goes.
    """

    __slots__ = ("future", "keys")

    def __init__(self, keys: Keys, future: asyncio.Future[Loaded]) -> None:
        self.keys = keys
        self.future = future


class ReadGatherer:
    """
    Answers `Store.load_many` for the tasks of any number of loops.

    Args:
        fetch: runs a statement in the calling thread; raises what SQLite raises.
        patiently: the same, trying again while somebody is in the way; raises `StoreError`.
    """

    def __init__(
        self,
        clock: Clock,
        fetch: Callable[[str, Parameters], list[Row]],
        patiently: Callable[[str, Parameters], Awaitable[list[Row]]],
    ) -> None:
        self._clock = clock
        self._fetch = fetch
        self._patiently = patiently
        # Each entry is touched in the thread of its own loop only.
        self._asked: dict[
            asyncio.AbstractEventLoop, dict[tuple[str, Shape], list[_Question]]
        ] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    async def load(self, tenant: str, keys: Keys) -> Loaded:
        """
        Answer one call, with others of this turn of the loop.
        """
        loop = asyncio.get_running_loop()
        question = _Question(keys, loop.create_future())
        asked = self._asked.get(loop)
        if asked is None:
            asked = self._asked[loop] = {}
            loop.call_soon(self._answer, loop)
        asked.setdefault((tenant, sqlite_reads.shape_of(keys)), []).append(question)
        return await question.future

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        for (tenant, _), questions in self._asked.pop(loop).items():
            for start in range(0, len(questions), MOST_TOGETHER):
                part = questions[start : start + MOST_TOGETHER]
                self._answer_part(loop, _Batch(tenant, part, self._clock))

    def _answer_part(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> None:
        try:
            rows = self._fetch(*batch.statement)
        except sqlite_faults.FAULTS:
            # Locked, mostly: what then waits, or becomes an error, does so in a task.
            task = loop.create_task(self._answer_later(batch))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        except Exception as error:  # noqa: BLE001 - rule 2
            batch.fail(error)
        else:
            batch.deliver(rows)

    async def _answer_later(self, batch: _Batch) -> None:
        try:
            rows = await self._patiently(*batch.statement)
        except BaseException as error:
            batch.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            batch.deliver(rows)


class _Batch:
    """
    Questions of one shape, and the statement that answers them.
    """

    def __init__(self, tenant: str, questions: list[_Question], clock: Clock) -> None:
        self._questions = questions
        self._now = clock.now()
        self._clock = sqlite_reads.micros(self._now)
        self.statement = sqlite_reads.load(
            tenant, self._clock, [question.keys for question in questions]
        )

    def deliver(self, rows: list[Row]) -> None:
        """
        Answer every question from the rows of the statement.
        """
        floor = rows[0][1] - sqlite_reads.TIME_FLOOR
        now = self._now if floor <= self._clock else sqlite_reads.from_micros(floor)
        for row in rows:
            question = self._questions[row[0]]
            if not question.future.done():
                found = sqlite_reads.loaded(row, question.keys)
                question.future.set_result(Loaded(found, now))

    def fail(self, error: BaseException) -> None:
        """
        Let every question fail.
        """
        if not isinstance(error, Exception):
            error = StoreError("The store stopped answering.", transient=True)
        for question in self._questions:
            if not question.future.done():
                own = copy.copy(error)
                own.__cause__ = error.__cause__
                question.future.set_exception(own)
