"""`python -m gpubp`: the command line."""

import sys

from gpubp.cli import main

sys.exit(main())
