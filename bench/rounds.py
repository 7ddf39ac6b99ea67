"""The rounds of the comparison: processes are prepared, then the contenders take turns."""

from __future__ import annotations

import dataclasses
import importlib
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cells import Cell
from contenders import Job
from cores import Cores
from process import Process
from verdict import is_floor

QUIET = 0.08  # of the CPU time may go to others while a contender is timed; beyond that it is timed again
ATTEMPTS = 5
PATIENCE = 2.0  # seconds in which cores may come back to where they usually are
Member = tuple[Process, list[Cell]]


def contender(name: str) -> Any:
    """Its module; libraries are imported only where it prepares."""
    return importlib.import_module(f"contenders.{name}")


def offered(name: str, job: Job) -> bool:
    """Whether the contender has that task on that device, in that precision and with that activation."""
    module = contender(name)
    return (
        hasattr(module, job.task)
        and job.precision in getattr(module, "PRECISIONS", (job.precision,))
        and job.activation in getattr(module, "ACTIVATIONS", (job.activation,))
        and job.device.split(":")[0] in getattr(module, "DEVICES", ("cpu", "cuda"))
    )


def job_of(name: str, job: Job) -> Job:
    """What the contender is asked for: a floor is the same for every activation."""
    return dataclasses.replace(job, activation="relu") if is_floor(name) else job


def groups(names: list[str], cells: list[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """(contender, cells) for each process: one for each shape where preparing takes long.

    Where time runs out the last are left out: gpubp and the floors, without which a ratio says little, come first.
    """
    for name in sorted(names, key=lambda name: (name != "engine", not is_floor(name))):
        slow = getattr(contender(name), "SLOW", False)
        own = [cell for cell in cells if offered(name, cell.job)]
        for shape in dict.fromkeys(cell.shape for cell in own) if slow else [None]:
            members = [cell for cell in own if shape in (None, cell.shape)]
            if members:
                yield name, members


def prepare(names: list[str], cells: list[Cell], seconds: float, together: int) -> list[Member]:
    """Every process with its jobs prepared, some at a time; what is not ready after `seconds` is left out."""
    end = time.monotonic() + seconds

    def one(group: tuple[str, list[Cell]]) -> Member:
        name, members = group
        process, answers = Process(name), dict[Job, dict[str, Any]]()
        for cell in members:
            job, left = job_of(name, cell.job), end - time.monotonic()
            if job not in answers:
                late = {"failed": f"not begun within {seconds:.0f} s"}
                answers[job] = process.prepare(job, left) if left > 1 else late
            cell.prepared[name] = answers[job]
        return process, members

    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(one, groups(names, cells)))


def undisturbed(process: Process, job: Job, seconds: float, cores: Cores | None = None) -> dict[str, Any]:
    """The answer of the first measurement that others left alone, else of the one that they disturbed least.

    "moved" in it: whether the cores were elsewhere than usual before or after, which counts as a disturbance.
    """
    answers = []
    for _ in range(ATTEMPTS):
        before = cores is not None and not cores.settled(PATIENCE)
        answer = process.measure(job, seconds)
        answers.append(answer | {"moved": before or (cores is not None and cores.moved())})
        quiet = (answer["others"] or 0.0) <= QUIET and not answers[-1]["moved"]
        if "seconds" not in answer or quiet:
            return answers[-1]
    return min(answers, key=lambda answer: (answer["moved"], answer["others"] or 0.0))


def measure(
    members: list[Member],
    cells: list[Cell],
    rounds: int,
    share: float,
    end: float,
    cores: Cores | None = None,
) -> int:
    """Rounds over all cells, contenders in turn and each time another first; the rounds that there was time for."""
    for done in range(rounds):
        known: dict[tuple[Process, Job], float] = {}
        for cell in cells:
            ready = [p for p, own in members if cell in own and "ready" in cell.prepared[p.name]]
            turn = done % max(1, len(ready))
            times = {}
            for process in (*ready[turn:], *ready[:turn]):
                if time.monotonic() > end:
                    return done
                job = job_of(process.name, cell.job)
                if (process, job) not in known:
                    answer = undisturbed(process, job, share, cores)
                    cell.others = max(cell.others, answer["others"] or 0.0)
                    if "seconds" not in answer:
                        cell.prepared[process.name] = answer
                        continue
                    cell.moved += answer["moved"]
                    known[process, job] = statistics.median(answer["seconds"])
                times[process.name] = known[process, job]
            cell.rounds.append(times)
    return rounds
