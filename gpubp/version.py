"""The version of gpubp, for the rooms that write it into files."""

__version__ = "0.1.0"
