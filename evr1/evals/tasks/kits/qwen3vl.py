"""Qwen3-VL's own evaluation scripts: how they read an option before they ask a judge."""

from collections.abc import Mapping

from evr1.evals.tasks.base import JUDGE, Verdict
from evr1.evals.tasks.kits import vlmevalkit

ASKED_OF_JUDGE = """\
Here the data end. Which option does the reply mean? Reply with its letter alone, or with Z if it
means none of them, several of them, or something else."""


def choice(response: str, options: Mapping[str, str], answer: str) -> Verdict:
    """Scores what follows the last think tag by the kit's rule.

    Args:
        response: as it was generated.
        options: letter to text.
        answer: the right letter.
    """
    said = response.rpartition("</think>")[2].strip()
    letter = vlmevalkit.can_infer(said, options, is_wary=True, is_limited=False)
    return Verdict(letter, float(letter == answer)) if letter else Verdict(JUDGE, None)
