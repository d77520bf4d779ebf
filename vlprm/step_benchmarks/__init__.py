"""Step benchmarks by name: solutions whose steps were labelled by people or from known ground truth.

    benchmark = BENCHMARKS["process_bench"]
    labelled = benchmark.load(Path("processbench"))
    calls = [None for _ in labelled.solutions]                  # which steps a model calls correct; None: no result
    print(benchmark.measured(labelled.solutions, calls))        # the official measures

To add one, write a file in this package with a `StepBenchmark` and add a line below.
"""

from __future__ import annotations

from vlprm.step_benchmarks import one_error, prm_bench, process_bench, synthetic, visual_process_bench, vlrm_bench
from vlprm.step_benchmarks.labelled import StepBenchmark

BENCHMARKS: dict[str, StepBenchmark] = {
    "visual_process_bench": visual_process_bench.BENCHMARK,
    "process_bench": process_bench.BENCHMARK,
    "prm_bench": prm_bench.BENCHMARK,
    "vlrm_bench": vlrm_bench.BENCHMARK,
    "synthetic": synthetic.BENCHMARK,
    "one_error": one_error.BENCHMARK,
}
