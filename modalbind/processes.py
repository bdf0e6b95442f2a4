"""The processes of one run: who is first, who does what, and what happens when one of them ends.

torchrun or `accelerate launch` start them and say in RANK and WORLD_SIZE which is which. What a
step exchanges is accelerate's business and torch's; here they agree on everything else, by short
texts in the key-value store by which they found each other. Waiting on it has no time limit, so a
long evaluation by the first process holds the others up and does not end them. A process that is
gone is missed all the same: each shows from a thread that it is alive, the first watches them all,
and all watch the first. What was said first holds for all: one prints, all end with its exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from modalbind.errors import InputError, PeerError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

PATIENCE_VARIABLE = "MODALBIND_LOST_AFTER_S"
LOST_AFTER_S = 120.0
"""Silence after which a process is lost. Ample: a long call in C may keep its thread from showing
that it is alive."""
JOIN_S = 600.0
BEATS = 20
"""Signs of life in that time, though at most two a second."""
MAX_PAUSE_S = 0.5
"""Between two looks for what the others say."""
GRACE_S = 5.0
"""Time that a process has to end by itself after another has ended."""
NO_STORE = "the store that it keeps no longer answers"

_ENDED = "ended"


def read_rank() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are."""
    count = int(os.environ.get("WORLD_SIZE") or 1)
    return int(os.environ.get("RANK") or 0) if count > 1 else 0, count


def check_alone(what: str) -> None:
    """Refuse what several processes cannot share.

    Raises:
        InputError: If there are several.
    """
    count = read_rank()[1]
    if count > 1:
        raise InputError(
            f"{what} by {count} processes asked for; only one run of `align`, and `embed`, are "
            "shared by several; start it once, without torchrun"
        )


def share_of(count: int, rank: int, world_size: int) -> range:
    """Return which of `count` items in a row are a process's own.

    All shares are contiguous, differ by at most one in length, and may be empty.

    Example:
        >>> [list(share_of(5, rank, 3)) for rank in range(3)]
        [[0], [1, 2], [3, 4]]
    """
    return range(count * rank // world_size, count * (rank + 1) // world_size)


@dataclass(frozen=True, slots=True)
class _Ending:
    """Which process ended first, and how."""

    rank: int
    exit_code: int
    line: str
    is_lost: bool = False

    def as_error(self) -> PeerError:
        line = self.line if self.is_lost else f"rank {self.rank} ended with: {self.line}"
        return PeerError(line, self.exit_code, was_said=not self.is_lost)


class Processes:
    """This process and the others of its run; `join` makes it.

    Attributes:
        rank: Number of this process, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int, count: int) -> None:
        """Stand alone if `count` is 1; else meet the others.

        Raises:
            InputError: If they cannot be met.
        """
        self.rank, self.count = rank, count
        self._turn = 0
        self._ending: _Ending | None = None
        self._left = threading.Event()
        self._lost_after_s = float(os.environ.get(PATIENCE_VARIABLE, LOST_AFTER_S))
        if count > 1:
            self._store = _connect(rank, count)
            threading.Thread(target=self._watch, args=(_connect(rank, count),), daemon=True).start()
            atexit.register(self.leave)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, compute: Callable[[], T]) -> T:
        """Let the first process do something, and return the result in every process.

        Args:
            compute: Called in the first process alone; returns what JSON can carry.

        Raises:
            PeerError: In the others, if it did not return because its process ended.
        """
        if self.count == 1:
            return compute()
        key = self._next_key()
        if self.is_first:
            result = compute()
            self._store.set(key, json.dumps(result))
            return result
        self._wait(key)
        found: T = json.loads(self._store.get(key))
        return found

    def meet(self) -> None:
        """Wait until every process has come here.

        Raises:
            PeerError: If one of them ended instead.
        """
        if self.count == 1:
            return
        key = self._next_key()
        if self._store.add(f"{key}/came", 1) == self.count:
            self._store.set(key, "")
        self._wait(key)

    def gather(self, value: T) -> list[T]:
        """Return what every process has come here with, by rank; it is what JSON can carry.

        Raises:
            PeerError: If one of them ended instead.
        """
        if self.count == 1:
            return [value]
        key = self._next_key()
        self._store.set(f"{key}/{self.rank}", json.dumps(value))
        self.meet()
        return [json.loads(self._store.get(f"{key}/{rank}")) for rank in range(self.count)]

    def settle(self, error: BaseException, line: str, exit_code: int) -> tuple[str, int]:
        """Return what this process is to print of an error, if anything, and its exit code."""
        if isinstance(error, PeerError):
            return ("" if error.was_said else line), exit_code
        # A collective fails when a peer is gone: which one is known a little later.
        if _is_of_collective(error):
            self._await_ending()
        if self._ending is None:
            self._ending = self._post(self._store, _Ending(self.rank, exit_code, line))
        is_said_here = self._ending.is_lost or self._ending.rank == self.rank
        return (self._ending.line if is_said_here else ""), self._ending.exit_code

    def leave(self) -> None:
        """Leave in order; the first process goes last, as it may keep the store."""
        import torch.distributed as dist

        if self._left.is_set():
            return
        self._left.set()
        if self._ending is None and dist.is_initialized():
            dist.destroy_process_group()
        until = time.monotonic() + 2 * GRACE_S
        gone = self._ending.rank if self._ending is not None and self._ending.is_lost else None
        others = [_left_key(rank) for rank in range(1, self.count) if rank != gone]
        with suppress(dist.DistError):
            self._store.set(_left_key(self.rank), "")
            while self._is_awaited(others) and time.monotonic() < until:
                time.sleep(0.05)

    def _is_awaited(self, left_keys: list[str]) -> bool:
        """Say whether this process stays until those keys are there."""
        return self.is_first and bool(left_keys) and not self._store.check(left_keys)

    def _next_key(self) -> str:
        # Every process comes to the same places in the same order.
        self._turn += 1
        return f"turn/{self._turn}"

    def _wait(self, key: str) -> None:
        import torch.distributed as dist

        pause = 0.01
        while True:
            try:
                # Looked for, not waited for: a wait that runs out of time is logged by torch.
                if self._store.check([key]):
                    return
                self._ending = self._ending or _read_ending(self._store)
            except dist.DistError:
                self._ending = self._ending or self._name_lost(0, NO_STORE)
            if self._ending is not None:
                raise self._ending.as_error()
            time.sleep(pause)
            pause = min(1.5 * pause, MAX_PAUSE_S)

    def _await_ending(self) -> None:
        until = time.monotonic() + self._lost_after_s + GRACE_S
        while self._ending is None and time.monotonic() < until:
            time.sleep(0.1)

    def _post(self, store: Store, ending: _Ending) -> _Ending:
        """Say that this process ends; return what was said first."""
        import torch.distributed as dist

        text = json.dumps(asdict(ending))
        with suppress(dist.DistError):
            return _Ending(**json.loads(store.compare_set(_ENDED, "", text)))
        return ending

    def _watch(self, store: Store) -> None:
        """Show that this process is alive, and end it when another has ended."""
        import torch.distributed as dist

        pause = max(0.5, self._lost_after_s / BEATS)
        watched = range(1, self.count) if self.is_first else range(1)
        # Until it is first seen, a process may still be starting.
        seen = {rank: ("", time.monotonic() + JOIN_S) for rank in watched}
        beat = 0
        while self._ending is None:
            beat += 1
            try:
                self._ending = self._look(store, beat, seen)
            except dist.DistError:
                self._ending = self._name_lost(0, NO_STORE)
            if self._left.wait(pause):
                return
        if self._left.wait(GRACE_S):
            return
        # The main thread waits for a collective that will never be complete.
        if self._ending.is_lost:
            print(f"modalbind: error: {self._ending.line}", file=sys.stderr, flush=True)  # noqa: T201
        with suppress(dist.DistError):
            store.set(_left_key(self.rank), "")
        os._exit(self._ending.exit_code)

    def _look(self, store: Store, beat: int, seen: dict[int, tuple[str, float]]) -> _Ending | None:
        store.set(f"beat/{self.rank}", str(beat))
        if (ending := _read_ending(store)) is not None:
            return ending
        for rank in [rank for rank in seen if not store.check([_left_key(rank)])]:
            found = store.get(f"beat/{rank}").decode() if store.check([f"beat/{rank}"]) else ""
            if found != seen[rank][0]:
                seen[rank] = (found, time.monotonic())
            elif time.monotonic() - seen[rank][1] > self._lost_after_s:
                found = f"no sign of it for {self._lost_after_s:g} s"
                return self._post(store, self._name_lost(rank, found))
        return None

    def _name_lost(self, rank: int, found: str) -> _Ending:
        line = (
            f"a run of {self.count} processes asked for; rank {rank} is lost: {found}; start all "
            "of them again, with --resume"
        )
        return _Ending(rank, PeerError.exit_code, line, is_lost=True)


@cache
def join() -> Processes:
    """Return the processes of this run: what a process belongs to holds for all its life.

    Raises:
        InputError: If there are several and they cannot be met.
    """
    return Processes(*read_rank())


def settle(error: BaseException, line: str, exit_code: int) -> tuple[str, int]:
    """Return what this process is to print of an error, and its exit code.

    Of several, the first to fail prints and all end with its code; each says which one was lost.
    """
    if read_rank()[1] == 1:
        return line, exit_code
    try:
        return join().settle(error, line, exit_code)
    except InputError:  # alone after all
        return line, exit_code


def _connect(rank: int, count: int) -> Store:
    from torch.distributed import DistError
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", rank, count, timeout=timedelta(seconds=JOIN_S)))
    except (DistError, ValueError, OSError) as error:
        raise InputError(
            f"a run of {count} processes asked for; rank {rank} cannot meet the others: "
            f"{str(error).splitlines()[0]}; start all of them with torchrun or accelerate launch"
        ) from error
    # torchrun may start all processes again, and keep the store.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"modalbind/{attempt}", store)


def _left_key(rank: int) -> str:
    return f"left/{rank}"


def _read_ending(store: Store) -> _Ending | None:
    return _Ending(**json.loads(store.get(_ENDED))) if store.check([_ENDED]) else None


def _is_of_collective(error: Any) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )
