"""What a run that is asked to end would lose, and what therefore happens next."""

from pathlib import Path

from evr1.formats import run_files
from evr1.parallel import leaving
from evr1.telemetry.phases import PhaseTimer

SAVING = "save"  # the phase in which a run that leaves saves
UPDATING = "update"  # the phase that ends with one more step, where it has come too far to leave


class Unsaved:
    """The plan of a run, for `leaving.watching`.

    Args:
        workdir: of the run.
        timer: of the run's phases.
        step: the last one that is whole in memory; 0: none. Also an attribute, to be kept up.
    """

    def __init__(self, workdir: str | Path, timer: PhaseTimer, step: int) -> None:
        self.step = step
        self._workdir, self._timer = Path(workdir), timer

    def __call__(self) -> leaving.Next:
        """Says what happens now: a step whose checkpoint is not on disk is saved first."""
        saved, phase = max(run_files.steps(self._workdir), default=0), self._timer.phase
        following = f"step {self.step + 1}, whose update is under way,"
        if self.step > saved:
            step = f"step {self.step}"
            first, when = f"{step} is saved first", f"; {phase} is under way" if phase else ""
            if phase == SAVING:
                when = "; that is under way"
            if phase == UPDATING:
                first, when = f"{first} (or {following} if that is done before)", ""
            text = f"{first}, and the same command goes on from it{when}"
            return leaving.Next(text, step)
        goes_on = f"goes on from the checkpoint of step {saved}" if saved else "begins with step 1"
        if_done = f"; {following} is saved if it is done by then" if phase == UPDATING else ""
        return leaving.Next(
            f"no step waits to be saved; it ends within {leaving.GRACE_S:.0f} s, and the same "
            f"command {goes_on}{if_done}"
        )
