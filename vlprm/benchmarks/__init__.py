"""Published answer benchmarks by name, each with its authors' own scorer."""

from __future__ import annotations

from vlprm.benchmarks import algopuzzlevqa, mathvision, mathvista, mmmu, mmmu_pro, puzzlevqa
from vlprm.benchmarks.benchmark import Benchmark
from vlprm.errors import UserError

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (mmmu, mmmu_pro, mathvista, mathvision, puzzlevqa, algopuzzlevqa)
}


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name. UserError lists the known ones."""
    if name not in BENCHMARKS:
        raise UserError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
