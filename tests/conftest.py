"""One thread a process, also in the processes that tests start: several that fight for few cores are many
times slower."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
