"""Published answer benchmarks by name, each with its authors' own scorer."""

from __future__ import annotations

from vlprm.benchmarks import algopuzzlevqa, mathvision, mathvista, mmmu, mmmu_pro, puzzlevqa
from vlprm.benchmarks.benchmark import Benchmark
from vlprm.errors import UserError
from vlprm.runs.plugins import module_has, part_of_module

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (mmmu, mmmu_pro, mathvista, mathvision, puzzlevqa, algopuzzlevqa)
}


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or the `BENCHMARK` of the module at that path. Names come from the command line,
    never from data. UserError lists the known ones, or names the published benchmark whose name a module's repeats."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if "." in name:
        benchmark = part_of_module(name, "BENCHMARK", Benchmark, "benchmark", "docs/examples/signs.py")
        if BENCHMARKS.get(benchmark.name, benchmark) is not benchmark:
            raise UserError(f"the benchmark of {name} has the name of a published one, {benchmark.name!r}; rename it")
        return benchmark
    raise UserError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}, or the path of a module")


def is_benchmark_module(name: str) -> bool:
    """Whether a name is the path of a module with a `BENCHMARK`. UserError if it is the path of no module."""
    return "." in name and module_has(name, "BENCHMARK", "benchmark")
