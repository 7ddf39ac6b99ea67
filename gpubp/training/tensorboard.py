"""Training as TensorBoard shows it: a curve over the epochs for each column of the history, in its event files.

Events and their framing are tensorboard's own. Of that package only those two modules are imported: neither it nor they
import TensorFlow or PyTorch then, whether installed or not.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from .history import Row
    from .trainer import Trainer

_VERSION = "brain.Event:2"  # of the format, in the first record of each file


class TensorBoard:
    """A callback of `fit` that writes the columns of each epoch's row to `log_dir`: loss, val_loss, lr, ...

    The step of a curve is the epoch. Each epoch is on disk when the next begins, and the file is closed when training
    ends, however that is. A run that goes on, in another process too, prolongs the curves: what was written of an
    epoch that is trained again is hidden. A directory that holds nothing yet gets the earlier epochs too.

    Raises ConfigError without the package tensorboard, StorageError where the directory cannot be written.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "tensorboard: expected the package tensorboard to write with; got no such package; "
                "pip install tensorboard"
            )
        self.log_dir = Path(log_dir)
        try:
            os.makedirs(self.log_dir, exist_ok=True)
        except OSError as error:
            raise self._failed(error) from error
        if not os.access(self.log_dir, os.W_OK):
            raise StorageError(
                f"tensorboard {self.log_dir}: expected a directory that can be written; got one that cannot; choose "
                "another one"
            )
        self._file: Any = None

    def __call__(self, trainer: Trainer, row: Row) -> None:
        try:
            rows: Sequence[Row] = [row]
            if self._file is None:
                rows = self._begun(trainer.history.rows)
            for one in rows:
                self._write(step=one["epoch"], summary=_summary(one))
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Closes the file; a later epoch opens another one."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            raise self._failed(error) from error

    def _begun(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Opens a new file; the rows that it is to begin with.

        A process that was killed may have left out its last epoch: of a run that goes on, that one is written again.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        if any("tfevents" in name for name in os.listdir(self.log_dir)):
            rows = rows[-2:]
        # TensorBoard reads files by the order of their names
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{platform.node()}.{os.getpid()}"
        self._file = RecordWriter(open(self.log_dir / name, "wb"))  # noqa: SIM115 - `close` closes it
        self._write(file_version=_VERSION)
        begun = SessionLog(status=SessionLog.START)  # hides what other files hold of this step and later ones
        self._write(step=rows[0]["epoch"], session_log=begun)
        return rows

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._file.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"tensorboard {self.log_dir}: expected a directory that can be written; got {error.strerror or error}; "
            "choose another one"
        )


def _summary(row: Row) -> Any:
    """A scalar for each number of the row, under the name of its column."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    numbers = {
        k: v for k, v in row.items() if k != "epoch" and not isinstance(v, bool) and isinstance(v, Real)
    }
    return Summary(value=[Summary.Value(tag=name, simple_value=float(v)) for name, v in numbers.items()])
