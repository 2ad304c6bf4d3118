"""Door clips: who comes in, how many they are, and when.

Questions of ours about clips of ours: `questions.jsonl` beside a folder `clips`.
"""

from evr1.evals.tasks import data_rows, metrics, ours
from evr1.evals.tasks.base import Doc, Part, Sample, Show, Source, Task, Verdict


def ask_briefly(sample: Sample) -> tuple[Part, ...]:
    """Returns a prompt of our own: the video, the question, and no word on the form."""
    options = ours.lettered(sample.doc.get("options", []))
    return Show(), "\n".join([sample.doc["problem"], *options, "Be brief."])


def by_text(doc: Doc, response: str) -> Verdict:
    """Scores a rule of our own: the reply is the very answer, but for case, dots and blanks."""
    said = response.strip(" .\n").lower()
    return Verdict(said, float(said == str(doc["answer"]).lower()))


TASK = Task(
    name="door_clips",
    source=Source(hub=("our door clips",), n=4, metric="accuracy", frames="train"),
    load=data_rows.loader("questions.jsonl", tags=("kind",)),
    prompts={"training": data_rows.ask, "brief": ask_briefly},
    rules={"evr1": data_rows.by_reward, "by_text": by_text},
    aggregates={"evr1": metrics.with_tags("kind")},
)
