"""The loss scale of float16: deltas are multiplied by it so that small ones do not vanish, updates divide by it.

`scaling` is a float64 vector that the CUDA kernels of a step share; other precisions keep SCALE 1 and DYNAMIC 0:

    scaling[SCALE]      what deltas and gradients are multiplied by
    scaling[GOOD]       steps in a row whose gradients were finite
    scaling[DYNAMIC]    1 where an overflow halves SCALE and skips the step, 0 where it stops the run

A step that overflows leaves the weights alone and halves SCALE; GROW_AFTER good ones in a row double it
[Micikevicius et al. 2018, Mixed precision training].
"""

SCALE, GOOD, DYNAMIC = range(3)
SCALING = 3

NO_SCALING = (1.0, 0.0, 0.0)
START = (65536.0, 0.0, 1.0)
GROW_AFTER = 2000
LARGEST = 2.0**24  # beyond it doubling stops
SMALLEST = 2.0**-24  # where a gradient still overflows here, it is not the scale: the run stops
