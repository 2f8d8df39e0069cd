"""Contestants in processes of their own, measured by turns.

Machines are shared and change their pace: only what was measured by turns, in
one run, says who is faster. Each contestant is a process that is asked for one
thing at a time, by lines of JSON on its standard input, and sleeps otherwise.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence


class Contestant:
    """A module of this package in a process, which answers what it is asked.

    Args:
      module: its name, e.g. `byol_tf.benchmarks.our_step`; it calls `answer`.
      setting: what it is to build, as JSON has it.
    """

    def __init__(self, module: str, setting: dict):
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def ask(self, question: str, **arguments):
        """The answer to one question.

        Raises:
          RuntimeError: if the process ended.
        """
        line = json.dumps({"question": question, **arguments})
        with contextlib.suppress(BrokenPipeError):  # Its exit code says more.
            print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            raise RuntimeError(f"a contestant ended with exit code {code}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def answer(questions: dict[str, Callable]) -> None:
    """What a contestant does: it answers the lines of its standard input.

    Args:
      questions: name -> function of the arguments, to what JSON can hold.
    """
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        arguments = json.loads(line)
        question = questions[arguments.pop("question")]
        print(json.dumps(question(**arguments)), file=answers, flush=True)


def by_turns(
    contestants: dict[str, Contestant], rounds: int, steps: int
) -> dict[str, list[float]]:
    """Seconds of a step, the median of each round; by name.

    Args:
      contestants: by name; each answers `steps`.
      rounds: how often each has its turn.
      steps: in a turn.
    """
    for contestant in contestants.values():
        contestant.ask("steps", count=3)  # Compiled, and its memory there.
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            seconds[name].append(
                statistics.median(contestant.ask("steps", count=steps))
            )
    return seconds


def at_least_one(text: str) -> int:
    """A number of rounds, steps or images, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def ratio(
    ours: Sequence[float], theirs: Sequence[float]
) -> tuple[float, float, float]:
    """How many times as fast: the median of all rounds, the least, the most."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ratios), ratios[0], ratios[-1]
