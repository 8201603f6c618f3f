"""All tasks, all pairs of a task and an optimizer, and the split of the tasks in two halves.

The split was fixed before any result was looked at: tasks in the order of the files, where similar ones are neighbours,
go to the two sides in turn. It is written out, so that a task added later moves no other.
"""

from dataclasses import dataclass

from autolr_lab.zoo import attention, deep, generative, images, recurrent, relational, tabular
from autolr_lab.zoo.task import Task

TASKS: tuple[Task, ...] = (
    *tabular.TASKS,
    *deep.TASKS,
    *images.TASKS,
    *recurrent.TASKS,
    *attention.TASKS,
    *generative.TASKS,
    *relational.TASKS,
)
BY_NAME = {task.name: task for task in TASKS}


@dataclass(frozen=True)
class Pair:
    """A task, and an optimizer to train it with."""

    task: Task
    optimizer: str

    @property
    def name(self) -> str:
        """Task and optimizer in one word."""
        return f"{self.task.name}/{self.optimizer}"

    @property
    def customary(self) -> float:
        """The peak rate that a practitioner would type."""
        return self.task.rates[self.optimizer]


PAIRS = tuple(Pair(task, optimizer) for task in TASKS for optimizer in task.rates)

LEARN = frozenset(
    {
        "digits-softmax",
        "digits-mlp",
        "digits-dropout",
        "wine-mlp",
        "diabetes-mlp",
        "large-targets",
        "rare-class",
        "digits-small-batch",
        "deep-relu-teacher",
        "deep-default-spirals",
        "siren-sound",
        "oscillator-equation",
        "strided-conv-digits",
        "resnet-groupnorm",
        "mixer-digits",
        "segment-blobs",
        "zen-lstm",
        "brackets-lstm",
        "waves-gru",
        "markov-post-norm",
        "copying",
        "farthest-pair",
        "digits-autoencoder",
        "digits-vae",
        "moons-diffusion",
        "moons-flow",
        "triangles-graph",
        "clicks-factors",
        "contrastive-digits",
    }
)


def side(task: Task) -> str:
    """``learn`` (priors and constants may be taken from it) or ``report`` (only what is reported)."""
    return "learn" if task.name in LEARN else "report"
