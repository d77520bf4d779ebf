"""The claims, and what a measured effect says about one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.perf.results import Effect

Verdict = Literal["holds", "does not hold", "not decided here", "not measured yet"]
WORTH = {"points": 1.0, "F1": 0.005, "AUROC": 0.005}  # a smaller effect is none


@dataclass(frozen=True)
class Claim:
    """A claim of the field. `effect` is the key of the bench's effect that is positive where the claim holds. `world`:
    where the reward model comes from, if one is compared: a *stranger*'s weights or the policy's own (*self*)."""

    says: str
    source: str
    bench: str
    effect: str
    world: Literal["", "stranger", "self"] = ""

    @property
    def command(self) -> str:
        return f"make bench NAME={self.bench}"


def verdict(effect: Effect | None) -> Verdict:
    """A claim holds if the interval is above 0, and does not hold if it is below the smallest effect worth having."""
    if effect is None:
        return "not measured yet"
    if effect.low > 0:
        return "holds"
    return "does not hold" if effect.high < WORTH[effect.unit] else "not decided here"


def in_both(says: str, source: str, effect: str) -> tuple[Claim, Claim]:
    """A claim about a change of the demo's recipe (`tests.perf.label_schemes`), in both worlds."""
    return (
        Claim(says, source, "label_schemes", effect, "stranger"),
        Claim(says, source, "label_schemes", f"{effect}, self", "self"),
    )


TOPICS: dict[str, tuple[Claim, ...]] = {
    "Labels": (
        Claim(
            "Counts fused with a judge's verdicts find more wrong steps than counts alone (a step without a label"
            " counts as not found)",
            "VL-PRM (2509.23250), GroundedPRM",
            "label_quality",
            "fused less counts",
        ),
        Claim(
            "Counts fused with a judge's verdicts are better labels than the judge alone",
            "Qwen2.5-Math-PRM (2501.07301)",
            "label_quality",
            "fused less judge",
        ),
        Claim(
            "Labels kept where counts and judge agree (consensus) are cleaner than all labels of the judge",
            "Qwen2.5-Math-PRM, VL-PRM",
            "label_quality",
            "consensus less judge",
        ),
        Claim(
            "Several sources of verdicts make better labels than the best of them",
            "Weaver (2506.18203), Natural Program (2306.03872)",
            "label_sources",
            "three judges less the best",
        ),
        *in_both(
            "Counts fused with a judge's verdicts train a better reward model than counts alone",
            "VL-PRM (2509.23250), GroundedPRM",
            "fused less counts",
        ),
        *in_both(
            "Counts fused with a judge's verdicts train a better reward model than the judge alone",
            "Qwen2.5-Math-PRM (2501.07301)",
            "fused less judge",
        ),
        *in_both(
            "In trees of a binary search, the outcomes of all solutions through a step train a better reward model than"
            " its own rollouts",
            "OVM (2311.09724), against OmegaPRM (2406.06592)",
            "through less own",
        ),
        *in_both(
            "All fused labels train a better reward model than those where counts and judge agree (consensus)",
            "against Qwen2.5-Math-PRM, VL-PRM",
            "fused less agreed",
        ),
        Claim(
            "Binary search for first errors makes better labels than rollouts from each prefix, at equal tokens",
            "OmegaPRM (2406.06592), MM-PRM (2505.13427)",
            "label_schemes",
            "omega less flat, self",
            "self",
        ),
        *in_both(
            "Labels of steps train a better reward model than outcomes alone",
            "CoT Information (2505.15927), PRM800K",
            "steps less outcomes",
        ),
        Claim(
            "Wrong labels of steps cost more than wrong labels of answers (40% of each)",
            "Guiding Through Complexity (2410.20533)",
            "label_schemes",
            "wrong answers less wrong steps, self",
            "self",
        ),
    ),
    "Training a reward model": (
        *in_both(
            "Soft labels train a better reward model than hard ones",
            "MM-PRM (2505.13427)",
            "soft less hard",
        ),
        *in_both(
            "Counts, by their likelihood, train a better reward model than their shares as soft labels",
            "-",
            "counts less soft",
        ),
        *in_both(
            "Steps after the first error are best left out",
            "PRM800K (2305.20050), VL-PRM",
            "stop less keep",
        ),
        *in_both(
            "Telling perception errors from reasoning errors helps the reward model",
            "VL-PRM",
            "kinds less none",
        ),
        *in_both(
            "Rewards that are implicit in a policy choose better than a head on the same outcomes",
            "ImplicitPRM (2412.01981)",
            "implicit less outcomes",
        ),
        *in_both(
            "The share of attention on images helps a reward head",
            "Lookback Lens (2407.07071), UHeads (2511.06209)",
            "lookback less none",
        ),
        Claim(
            "The words of steps help a reward model that reads their symbols",
            "against What Are Step-Level Reward Models Rewarding (2412.15904)",
            "ablations",
            "all less trained without words",
            "stranger",
        ),
        Claim(
            "Earlier steps help a reward model judge a step",
            "What Are Step-Level Reward Models Rewarding (2412.15904)",
            "ablations",
            "all less trained without history",
            "stranger",
        ),
        Claim(
            "A reward model judges by the image",
            "VL-PRM, VisualPRM (2503.10291)",
            "ablations",
            "all less trained without images",
            "stranger",
        ),
        *in_both(
            "Ranking a solution's steps (PQM) adds to the step loss",
            "PQM (2410.11287)",
            "ranks less none",
        ),
        *in_both(
            "Learning a value beside correctness helps the reward",
            "BiRM (2503.04618)",
            "value less none",
        ),
        *in_both(
            "A learned concentration is better than a fixed one",
            "BetaPRM (2605.15529)",
            "concentration less counts",
        ),
        Claim(
            "A bigger backbone, taught otherwise, makes a better reward model than the policy's own, on equal labels",
            "VisualPRM, VL-PRM",
            "vote",
            "stranger less self",
        ),
    ),
    "Choosing and searching": (
        Claim(
            "The smallest step reward chooses better than their mean",
            "Math-Shepherd (2312.08935), against VisualPRM",
            "aggregations",
            "self, min less mean",
            "self",
        ),
        Claim(
            "The smallest step reward chooses better than their product",
            "Math-Shepherd (2312.08935), against PRM800K",
            "aggregations",
            "self, min less product",
            "self",
        ),
        Claim(
            "The smallest step reward chooses better than the last one",
            "Math-Shepherd (2312.08935), against Snell et al. (2408.03314)",
            "aggregations",
            "self, min less last",
            "self",
        ),
        Claim(
            "Step rewards choose better solutions than one reward for the whole solution",
            "PRM800K",
            "tts",
            "steps less whole",
            "stranger",
        ),
        Claim("Step rewards choose better solutions than a vote", "PRM800K", "tts", "best of n less vote", "stranger"),
        Claim(
            "Greedy search by step rewards is better than best-of-N at equal tokens",
            "contrary to VL-PRM",
            "tts",
            "greedy less best of n",
            "stranger",
        ),
        Claim(
            "A beam search by step rewards is better than best-of-N at equal tokens",
            "contrary to VL-PRM",
            "tts",
            "step beam less best of n",
            "stranger",
        ),
        Claim(
            "Refined Best-of-N is better than best-of-N at equal tokens of all models",
            "GM-PRM (2508.04088)",
            "tts",
            "refined less best of n",
            "stranger",
        ),
        Claim(
            "Best of N by a reward model beats the vote at equal FLOPs",
            "-",
            "vote",
            "stranger less vote at equal FLOPs",
            "stranger",
        ),
        Claim("Best of N by a reward model beats the vote", "-", "vote", "stranger less vote", "stranger"),
        Claim("Best of N by a reward model beats the vote", "-", "vote", "self less vote", "self"),
        Claim(
            "Best of N by a reward model beats the likelihood of its backbone",
            "-",
            "vote",
            "stranger less likelihood",
            "stranger",
        ),
        Claim(
            "Best of N by a reward model beats the likelihood of its backbone",
            "-",
            "vote",
            "self less likelihood",
            "self",
        ),
        Claim(
            "Beams kept by correctness and value end right more often than beams kept by correctness",
            "BiRM (2503.04618)",
            "value_in_beams",
            "weight 0.5 less correctness",
            "self",
        ),
        Claim(
            "Beams kept by value end right more often than beams kept by correctness",
            "OVM (2311.09724), AlphaMath (2405.03553)",
            "value_in_beams",
            "weight 1 less correctness",
            "self",
        ),
        *in_both(
            "Rewards minus half their learned standard deviation choose better than these rewards",
            "BetaPRM (2605.15529)",
            "risk less none",
        ),
        Claim(
            "Trained on 10,000 problems, a reward model beats the likelihood of its backbone",
            "-",
            "label_curve",
            "reward model less likeliest",
            "self",
        ),
        Claim(
            "Trained on 10,000 problems, a reward model beats the vote",
            "-",
            "label_curve",
            "reward model less majority",
            "self",
        ),
        Claim("Zooms are worth points where the print is fine", "DeepEyes, VLM-R3", "tts", "zoom less none"),
    ),
    "Teaching the policy": (
        Claim(
            "Step-wise DPO on pairs of a search tree raises pass@1",
            "Step-DPO (2406.18629), MCTS-DPO",
            "policy_pairs",
            "pairs less base",
        ),
        Claim(
            "Pairs of a search tree teach more than the same pairs swapped at random",
            "control",
            "policy_pairs",
            "pairs less random labels",
        ),
        Claim("SFT on a tree's right paths raises pass@1", "AlphaMath, ReST", "policy_pairs", "right paths less base"),
        Claim(
            "RL with a gated reward model leads to more right answers than the outcome alone",
            "PS-GRPO (URSA)",
            "policy_learning",
            "count_grid, PRM gated: right over outcome",
        ),
        Claim(
            "RL with a gated reward model leads to more solutions with every step right",
            "PS-GRPO (URSA)",
            "policy_learning",
            "count_grid, PRM gated: all_right over outcome",
        ),
        Claim(
            "RL on a reward model's scores alone, without answers, leads to more right answers than the outcome alone",
            "against URSA, PURE (2504.15275)",
            "policy_learning",
            "count_grid, PRM alone: right over outcome",
        ),
        Claim(
            "RL on a reward model's scores alone leads to more solutions with every step right",
            "against URSA, PURE (2504.15275)",
            "policy_learning",
            "count_grid, PRM alone: all_right over outcome",
        ),
        Claim(
            "With a weak reward model and over more rounds, gated scores lead to more right answers than plain ones",
            "PS-GRPO (URSA), PURE (2504.15275)",
            "policy_learning",
            "weak reward model, PRM gated: right over plain",
        ),
        Claim(
            "Outcome rewards repair a policy that neglects its zooms",
            "VLM-R3, DeepEyes",
            "policy_looking",
            "neglect, grpo: right over start",
        ),
        Claim(
            "Outcome rewards repair a policy that zooms and does not look",
            "against From Illusion to Intention",
            "policy_looking",
            "illusion, grpo: right over start",
        ),
        Claim(
            "Credit for any valid region repairs a policy that zooms and does not look better than the outcome alone",
            "R-GRPO (VLM-R3)",
            "policy_looking",
            "illusion, r_grpo: right over outcome",
        ),
        Claim(
            "Credit for any valid region makes a policy use its crops more than the outcome alone",
            "R-GRPO (VLM-R3)",
            "policy_looking",
            "illusion, r_grpo: used over outcome",
        ),
        Claim(
            "Credit by the true region repairs a policy that zooms and does not look better than the outcome alone",
            "ViRL (From Illusion to Intention, 2511.23031)",
            "policy_looking",
            "illusion, virl: right over outcome",
        ),
        Claim(
            "Credit by the value of the crop repairs a policy that zooms and does not look better than the outcome"
            " alone",
            "VinePPO (2410.01679), From Illusion to Intention",
            "policy_looking",
            "illusion, zoom_value: right over outcome",
        ),
    ),
}
CLAIMS = tuple(claim for claims in TOPICS.values() for claim in claims)
