"""Measure, choose, remember: which of several ways to launch the same work is kept on this device."""

from __future__ import annotations

import logging
import statistics
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gpubp.errors import DeviceError, DeviceMemoryError

from .choices import ChoiceFile, plain_choices
from .recording import capture

_log = logging.getLogger("gpubp")

ROUNDS = 5  # of each candidate, in turns; the median counts
BURST = 10  # launches between two events at least
_LONG_ENOUGH = 1.0  # milliseconds between two events, so that their resolution does not matter
_MOST = 200  # launches between two events at most
_WORTH = 0.98  # a later candidate must take less than this share of an earlier one's time

Candidate = Callable[[], object]


class Context(Protocol):
    """What tuning needs of a device; `Lane` has it."""

    device_id: int

    @property
    def stream(self) -> Any:
        """The stream that candidates launch on, read at each launch."""

    def use(self) -> AbstractContextManager[Any]:
        """Inside, this device is the current one."""

    def onto(self, stream: Any) -> AbstractContextManager[None]:
        """Inside, candidates launch on `stream`."""


class Tuner:
    """Chooses for each key one of several named candidates, which do the same work on the same operands.

    A choice is taken, in this order, from: what `adopt` was given; with `deterministic` the first candidate, a table
    that never changes on one machine; what was chosen before, in this process or on disk; a measurement.
    `used` are the choices of this process, as plain JSON values: store them with a checkpoint and `adopt` them on
    resume, so that the same kernels run, and give the same bits. Threads may share a tuner.
    """

    def __init__(self, context: Context, identity: Mapping[str, str], *, deterministic: bool = False) -> None:
        self.deterministic = deterministic
        self._context = context
        self._file = ChoiceFile(identity)
        self._remembered: dict[str, str] | None = None  # read from disk when first needed
        self._adopted: dict[str, str] = {}
        self._used: dict[str, str] = {}
        self._lock = threading.RLock()

    def choose(
        self, key: str, candidates: Mapping[str, Candidate], accept: Callable[[str], bool] | None = None
    ) -> str | None:
        """The name of the candidate to launch for this key; None where `accept` refuses them all.

        key: text that holds all that matters (operation, shapes, layouts, types). The candidates come in the order of
        preference; each may be launched hundreds of times, so a launch must not depend on what its results hold.
        One that has an attribute `capturable` = False is launched as it is; the others inside a graph, as they will
        run later, so that a short kernel is not measured by the time that Python takes.
        `accept` is asked before a candidate is taken for the first time, and must not be asked inside a capture.
        """
        with self._lock:
            name = self._used.get(key)
            if name not in candidates:
                name = self._first_choice(key, candidates, accept or (lambda name: True))
                if name is not None:
                    self._used[key] = name
            return name

    @property
    def used(self) -> dict[str, str]:
        """Every choice that was made or looked up in this process."""
        with self._lock:
            return dict(self._used)

    def adopt(self, choices: object) -> None:
        """Takes the `used` of another run; they win over all else, where such a candidate exists."""
        with self._lock:
            self._adopted.update(plain_choices(choices))
            self._used.clear()

    def _first_choice(
        self, key: str, candidates: Mapping[str, Candidate], accept: Callable[[str], bool]
    ) -> str | None:
        adopted = self._adopted.get(key)
        if adopted is not None:
            if adopted in candidates and accept(adopted):
                return adopted
            _log.warning(
                "%s: the stored run used %s, which this machine does not offer; results may differ in the last bits",
                key,
                adopted,
            )
        if self.deterministic:
            return next((name for name in candidates if accept(name)), None)
        if self._remembered is None:
            self._remembered = self._file.read()
        remembered = self._remembered.get(key)
        if remembered in candidates:
            return remembered
        accepted = {name: candidate for name, candidate in candidates.items() if accept(name)}
        if not accepted:
            return None
        name = next(iter(accepted))
        if len(accepted) > 1:
            name = fastest(measure(accepted, self._context))
            self._remembered[key] = name
            self._file.add({key: name})
        return name


def device_identity(context: Context, cublaslt: int) -> dict[str, str]:
    """What a measurement holds for: this kind of device, its driver, this version of cuBLASLt."""
    from cupy.cuda import Device, runtime

    name = runtime.getDeviceProperties(context.device_id)["name"]
    return {
        "gpu": name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        "compute_capability": str(Device(context.device_id).compute_capability),
        "driver": str(runtime.driverGetVersion()),
        "cublaslt": str(cublaslt),
    }


def fastest(milliseconds: Mapping[str, float]) -> str:
    """The quickest; an earlier one where a later one is not clearly quicker, so that noise decides little."""
    names = list(milliseconds)
    best = names[0]
    for name in names[1:]:
        if milliseconds[name] < _WORTH * milliseconds[best]:
            best = name
    return best


def measure(candidates: Mapping[str, Candidate], context: Context) -> dict[str, float]:
    """Median milliseconds per launch of each candidate, measured in turns so that all see the same clock rates.

    A candidate that the library offers and then refuses to launch is left out; DeviceError where all are refused.
    """
    with context.use():
        bursts = _bursts(candidates, context)
        times: dict[str, list[float]] = {name: [] for name in bursts}
        for _ in range(ROUNDS):
            for name, (run, launches) in bursts.items():
                times[name].append(_elapsed(run, context.stream) / launches)
    return {name: statistics.median(each) for name, each in times.items()}


def _bursts(candidates: Mapping[str, Candidate], context: Context) -> dict[str, tuple[Candidate, int]]:
    """`_burst` of each candidate that can be launched."""
    bursts, refused = {}, DeviceError("no way to launch was offered")
    for name, candidate in candidates.items():
        try:
            bursts[name] = _burst(candidate, context)
        except DeviceMemoryError:
            raise
        except DeviceError as error:
            refused = error
            _log.warning("%s is not used: %s", name, error)
    if not bursts:
        raise refused
    return bursts


def _burst(candidate: Candidate, context: Context) -> tuple[Candidate, int]:
    """A function that launches the candidate often enough to be timed, and how often."""
    stream = context.stream
    candidate()  # loads its code
    once = max(_elapsed(candidate, stream), 1e-6)
    launches = max(BURST, min(_MOST, round(_LONG_ENOUGH / once)))

    def eagerly() -> None:
        for _ in range(launches):
            candidate()

    if not getattr(candidate, "capturable", True):
        return eagerly, launches

    def issue(own: Any) -> None:
        with context.onto(own):
            eagerly()

    graph = capture(issue)
    graph.launch(stream)  # uploads it
    return (lambda: graph.launch(stream)), launches


def _elapsed(run: Candidate, stream: Any) -> float:
    """Milliseconds on the device."""
    from cupy.cuda import Event, get_elapsed_time

    start, end = Event(), Event()
    start.record(stream)
    run()
    end.record(stream)
    end.synchronize()
    return float(get_elapsed_time(start, end))
