"""A package, so that `tests.x` is ours: torch-fidelity installs a package of that name."""
