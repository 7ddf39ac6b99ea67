"""scikit-learn's check_estimator over our classes, in a process of its own for SCIPY_ARRAY_API; prints JSON."""

import json
import os
import sys
import warnings

os.environ["SCIPY_ARRAY_API"] = "1"  # before SciPy is loaded
warnings.simplefilter("ignore")  # the checks fit a few epochs, and say so

from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

import gpubp  # noqa: E402

norm = sys.argv[2] if len(sys.argv) > 2 else None
estimator = getattr(gpubp, sys.argv[1])(
    max_iter=100, device="cpu", norm=norm
)  # what scikit-learn's own run sets
results = check_estimator(estimator, on_skip=None, on_fail=None)
print(json.dumps([[one["check_name"], one["status"], repr(one["exception"])[:500]] for one in results]))
