"""Training: one step, the loop of epochs around it, validation, early stopping, checkpoints."""

from .history import History
from .stopping import EarlyStopping
from .tensorboard import TensorBoard
from .trainer import Trainer

__all__ = ["EarlyStopping", "History", "TensorBoard", "Trainer"]
