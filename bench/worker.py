"""One process of the comparison: prepares jobs of one contender and times them when it is told to.

python bench/worker.py CONTENDER          commands as JSON lines on standard input, answers on standard output

{"do": "prepare", "job": {...}, "seconds": 60}    {"ready": seconds it took, "loss": to compare} or {"failed": why}
{"do": "measure", "job": {...}, "seconds": 0.2}   {"seconds": [per step, epoch or call, ...]} or {"failed": why}
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from typing import Any

from contenders import Job, Work

STEPS = 20  # after which losses are compared
READINGS = 5  # of the clock in one measurement at most
EPOCHS = 2  # readings of whole epochs, of which several are made in one call


def make_job(values: dict[str, Any]) -> Job:
    return Job(**{**values, "layers": tuple(values["layers"])})


def prepare(module: Any, job: Job, seconds: float) -> tuple[Work, dict[str, Any]]:
    """The work, with its loss known and everything compiled that a reading runs."""

    late = TimeoutError(f"not prepared within {seconds:g} s")
    rung = False

    def give_up(*_: Any) -> None:
        nonlocal rung
        rung = True
        raise late

    signal.signal(signal.SIGALRM, give_up)
    # again and again: a callback may swallow an exception
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    try:
        start = time.perf_counter()
        work = getattr(module, job.task)(job)
        loss = None
        if work.loss is not None:
            if job.task == "step":
                work.run(STEPS - work.done)
                work.sync()
            loss = work.loss()
        work.run(work.chunk)
        work.sync()
        took = time.perf_counter() - start
        if took > seconds:
            raise late
        return work, {"ready": took, "loss": loss}
    except Exception:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if rung:
            raise late from None  # a library that was being imported may have made another error of it
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def measure(work: Work, seconds: float, times: int, readings: int = READINGS) -> tuple[list[float], int]:
    """Seconds of one time of the task, in readings of as many runs as fill their share; how many runs these were.

    `times` is where to begin looking for that number, 0 at first. No reading begins after the seconds are over.
    """
    share, times = seconds / readings, max(work.chunk, times)
    took = clock(work, times)
    while took < share / 2 and times < 1_000_000:
        times = max(2 * times, int(times * share / max(took, 1e-9)))
        times = -(-times // work.chunk) * work.chunk
        took = clock(work, times)
    found = (
        [took] if took > seconds / 2 else []
    )  # a short one warms caches that the others have used meanwhile
    end = time.perf_counter() + seconds
    while not found or (len(found) < readings and time.perf_counter() < end):
        found.append(clock(work, times))
    return [took / times * work.scale for took in found], times


def clock(work: Work, times: int) -> float:
    work.sync()
    start = time.perf_counter()
    work.run(times)
    work.sync()
    return time.perf_counter() - start


def settle() -> None:
    """Waits until no thread of this process works: idle threads of a BLAS spin for a while, on the next one's cores."""
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.02)
        if time.process_time() - before < 0.002:
            return


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    module = importlib.import_module(f"contenders.{sys.argv[1]}")
    prepared: dict[Job, Work] = {}
    times: dict[Job, int] = {}
    for line in sys.stdin:
        command = json.loads(line)
        job = make_job(command["job"])
        try:
            if command["do"] == "prepare":
                prepared[job], answer = prepare(module, job, command["seconds"])
            else:
                readings = EPOCHS if job.task == "epoch" else READINGS
                seconds, times[job] = measure(prepared[job], command["seconds"], times.get(job, 0), readings)
                answer = {"seconds": seconds}
        except Exception as error:  # goes into the record; the other contenders go on
            answer = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        settle()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
