"""Published answer benchmarks by name, each with its authors' own scorer."""

from __future__ import annotations

from vlprm.benchmarks import (
    algopuzzlevqa,
    dynamath,
    hr_bench,
    logicvista,
    mathverse,
    mathvision,
    mathvista,
    mm_k12,
    mmmu,
    mmmu_pro,
    olympiadbench,
    puzzlevqa,
    vstar,
    wemath,
)
from vlprm.benchmarks.benchmark import Benchmark
from vlprm.runs.plugins import known_or_in_module, module_has

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        *(mmmu, mmmu_pro, mathvista, mathvision, puzzlevqa, algopuzzlevqa),
        *(mathverse, dynamath, wemath, logicvista, olympiadbench, mm_k12, vstar, hr_bench),
    )
}


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or the `BENCHMARK` of the module at that path. Names come from the command line,
    never from data. UserError suggests the nearest one, or names the published benchmark whose name a module's
    repeats."""
    return known_or_in_module(name, BENCHMARKS, "BENCHMARK", "benchmark", "docs/examples/signs.py")


def is_benchmark_module(name: str) -> bool:
    """Whether a name is the path of a module with a `BENCHMARK`. UserError if it is the path of no module."""
    return "." in name and module_has(name, "BENCHMARK", "benchmark")
