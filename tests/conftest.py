"""What tests share. One thread a process, also in the processes that tests start: several that fight for few
cores are many times slower."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dpsims(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program in this process: exit code, stdout, stderr."""

    def run(*args: Any) -> tuple[int, str, str]:
        from dpsims import cli

        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run
