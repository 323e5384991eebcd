"""`dpsims train` whose minutes are CPU time of its process, not time by the clock.

    OMP_NUM_THREADS=1 python benchmarks/core_time.py train RECIPE --training.max_minutes 60 ...

On a machine that does other work meanwhile, trainings of "an hour of one core" stay comparable.
"""

from __future__ import annotations

import time

from dpsims.cli import main
from dpsims.training import loop

if __name__ == "__main__":
    loop.clock = time.process_time
    main()
