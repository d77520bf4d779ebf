"""Pair benchmarks by name: two responses to one prompt, and which of them people prefer.

    benchmark = PAIR_BENCHMARKS["vl_rewardbench"]
    pairs = load_pairs(benchmark, None).pairs                   # from the Hub
    preferences = [[0.5] for _ in pairs]                         # 1: the right response is preferred, 0.5: a tie
    print(measured(benchmark, pairs, preferences))               # accuracy by the official rule

To add one, write a file in this package with a `PairBenchmark` and add a line below.
"""

from __future__ import annotations

from vlprm.pair_benchmarks import mmrb2, multimodal_rewardbench, vl_rewardbench
from vlprm.pair_benchmarks.pairs import PairBenchmark

PAIR_BENCHMARKS: dict[str, PairBenchmark] = {
    benchmark.name: benchmark
    for benchmark in (mmrb2.BENCHMARK, vl_rewardbench.BENCHMARK, multimodal_rewardbench.BENCHMARK)
}
