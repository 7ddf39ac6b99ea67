"""A worker of the comparison as seen from outside: started, asked, ended."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from contenders import Job
from machine import environment
from neighbours import Watch

GRACE = 20.0  # seconds beyond its own limit after which a worker that does not answer is killed
LONGEST = 120.0  # one measurement


class Process:
    """One contender's process. Answers are dicts; {"failed": why} where something went wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        folder = Path(__file__).parent
        self._errors: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(folder / "worker.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._reader = threading.Thread(target=self._keep_errors, daemon=True)
        self._reader.start()

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-5:], line.strip()]

    def prepare(self, job: Job, seconds: float) -> dict[str, Any]:
        """Prepares the job: {"ready": seconds, "loss": ...}."""
        return self._ask(
            {"do": "prepare", "job": dataclasses.asdict(job), "seconds": seconds}, seconds + GRACE
        )

    def measure(self, job: Job, seconds: float) -> dict[str, Any]:
        """Times it: {"seconds": [...], "others": share of the CPU time that others used meanwhile, or None}."""
        command = {"do": "measure", "job": dataclasses.asdict(job), "seconds": seconds}
        watch = Watch(self._process.pid)
        answer = self._ask(command, LONGEST + seconds)
        return {**answer, "others": watch.others()}

    def _ask(self, command: dict[str, Any], limit: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(limit, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # it has ended, or its pipe is closed
            line = ""
        finally:
            timer.cancel()
        if not line:
            last = self._errors[-1] if self._errors else "no message"
            return {"failed": f"the process ended, or did not answer within {limit:.0f} s: {last[:300]}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Closes its input, which ends it; kills it where that does not."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
