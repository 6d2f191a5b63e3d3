"""Candidates worth a trial: proposed by a source, refused by exact cost before a trial exists, never tried twice.

Sources are ours (`search.sources`) or samplers of Optuna, which work on a mirror of the study in memory. Draws that are
refused stay there; one that is accepted goes on record with all its choices at once. What is proposed is a function of
the study's seed and of its trials, so that a study that was interrupted proposes what it would have proposed.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from random import Random
from typing import Any

import numpy as np
import optuna
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from archspec.errors import SpecError
from archspec.spec import Spec
from search.fidelity.rungs import Stage
from search.figures import Figures
from search.frontier import batch_begin
from search.objectives import Priced
from search.schedule import Further, Schedule
from search.sources import History, Sources
from search.storage import Record, candidate, counted, valid
from search.study import SOURCES, Study
from spaces.candidate import Candidate
from spaces.encoding import Vectors, encode
from spaces.space import Space

DRAWS = 1000  # for one proposal, before the space counts as exhausted
FAITHFUL = 24  # draws of the study's own sampler; it may propose the same for ever, so what follows is random
DUPLICATE = "tried before"
POPULATION = 20  # of the genetic samplers; a study has tens to hundreds of trials


@dataclass(frozen=True)
class Proposal:
    """A candidate that keeps all constraints, and an evaluation of it that was not made yet.

    Attributes:
        stage: how it is trained for it; ``rung`` and ``seed``, of the evaluation.
        further: whether it was started before.
        learned: what was foretold of it, see `search.sources.Sources.learned`.
    """

    spec: Spec
    priced: Priced
    key: str
    mirrored: int  # number in the mirror
    params: dict[str, Any]
    distributions: dict[str, Any]
    system: dict[str, Any]
    draws: int
    refused: dict[str, int]  # how many draws each constraint refused, before this one
    stage: Stage
    rung: int
    seed: int
    folder: str  # evaluations share one if the later goes on where the earlier stopped
    further: bool = False
    learned: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exhausted:
    """No draw was accepted."""

    draws: int
    refused: dict[str, int]

    def __str__(self) -> str:
        return f"{self.draws:,} candidates were drawn; {refusals(self.refused)}"


def refusals(refused: dict[str, int]) -> str:
    """Which constraint refused how many, the most frequent first."""
    ordered = sorted(refused.items(), key=lambda pair: -pair[1])
    return "; ".join(f"{count:,} {cause if cause == DUPLICATE else f'refused by: {cause}'}" for cause, count in ordered)


class Proposer:
    """Proposes candidates of one study."""

    def __init__(self, study: Study, space: Space, record: Record, fingerprint: str, prices: Any) -> None:
        self.study, self.space, self.record, self.fingerprint, self.prices = study, space, record, fingerprint, prices
        self.mirror = optuna.create_study(directions=[objective.direction for objective in study.objectives])
        self.mirrored: dict[int, int] = {}  # trial on record -> its number in the mirror
        self.ended: set[int] = set()
        self.causes: dict[str, str] = {}  # of refusals, whatever their numbers
        self.figures = Figures(space, study.recipe, study.objectives, study.bounds)
        self.sources = Sources(space, self.figures, study.objectives)
        self.surveyed = record.recall("survey") is not None
        self.schedule = Schedule(study)
        self.vectors: dict[int, Vectors] = {}  # of trials on record
        self.refused: list[Vectors] = []  # proposals of a source that was wrong about them

    def ask(self) -> Proposal | Exhausted:
        """A candidate to train next; one whose process died before comes first."""
        trials = self.record.trials()
        taken = {candidate(trial).get("key") for trial in valid(trials)}
        self._follow(trials)
        seed = _seed(self.study.seed, len(counted(trials)))
        given_back = (t for t in trials if t.user_attrs.get("again") and not candidate(t).get("further"))
        again = (trial for trial in given_back if candidate(trial).get("key") not in taken)
        stage = self.schedule.stage(0)
        refused: Counter[str] = Counter()
        draws = 0
        for values in islice(chain((t.params for t in islice(again, 1)), self._values(trials, seed)), DRAWS):
            draws += 1
            if values is not None:
                self.mirror.enqueue_trial(values)
            drawn = self.mirror.ask()
            try:
                chosen = self.space.suggest(drawn)
                spec = chosen.spec
            except SpecError as error:
                refused[self._cause(error)] += 1
            else:
                priced = Priced(spec, self.study.recipe, self.prices)
                key = self.key(spec, stage)
                bound = self._broken(priced)
                if bound is None and key not in taken:
                    self._survey()
                    frozen = self.mirror.get_trials(deepcopy=False)[drawn.number]
                    return Proposal(
                        spec, priced, key, drawn.number, dict(frozen.params), dict(frozen.distributions),
                        dict(frozen.system_attrs), draws, dict(refused), stage, 0, stage.recipe.seed,
                        self._folder(spec, stage), learned=self.sources.learned(chosen),
                    )  # fmt: skip
                refused[bound or DUPLICATE] += 1
                self.refused.append(encode(chosen))
            self.mirror.tell(drawn.number, state=TrialState.FAIL)
        return Exhausted(draws, dict(refused))

    def _values(self, trials: list[FrozenTrial], seed: int) -> Iterator[dict[str, Any] | None]:
        """Choices worth a trial, the best first; None for those that the mirror's sampler is to make."""
        name = self.study.sampler
        if name == "frontier":
            yield from (one.values for one in islice(self._batch(trials), FAITHFUL))
        elif name in SOURCES:
            source = self.sources.of(name)(self.history(trials, self.refused), seed)
            yield from (one.values for one in (source if name == "grid" else islice(source, FAITHFUL)))
            if name == "grid":
                return
        else:
            self.mirror.sampler = sampler(self.study, seed)
            yield from repeat(None, FAITHFUL)
        random = Random(seed)
        while True:
            yield self.space.draw(random).values

    def _batch(self, trials: list[FrozenTrial]) -> Iterator[Candidate]:
        """Those of a batch that were not tried. It goes by what was on record when its first was started."""
        started = counted(trials)
        begin = batch_begin(len(started))
        then = trials if begin == len(started) else [t for t in trials if t.number < started[begin].number]
        tried = {vector.tobytes() for vector in [*map(self._vector, valid(trials)), *self.refused]}
        batch = self.sources.of("frontier")(self.history(then), _seed(self.study.seed, begin))
        return (one for one in batch if encode(one).tobytes() not in tried)

    def _survey(self) -> None:
        """Puts on record, once, what of the space keeps the constraints."""
        if not self.surveyed and (found := self.sources.survey):
            self.record.remember("survey", found)
            self.surveyed = True

    def history(self, trials: list[FrozenTrial], refused: Sequence[Vectors] = ()) -> History:
        """What the trials say of encoded candidates."""
        vectors = {candidate(trial)["hash"]: self._vector(trial) for trial in valid(trials)}
        foretold = self.schedule.foretold(trials)
        told = {key: values for key, values in foretold.items() if values is not None}
        pending = [vectors[key] for key in foretold if key not in told] + list(refused)
        slots, objectives = len(self.space.slots), len(self.study.objectives)
        return History(
            np.array([vectors[key] for key in told]).reshape(-1, slots),
            np.array(list(told.values())).reshape(-1, objectives),
            np.array(pending).reshape(-1, slots),
        )

    def _vector(self, trial: FrozenTrial) -> Vectors:
        if trial.number not in self.vectors:
            self.vectors[trial.number] = encode(self.space.candidate(trial.params))
        return self.vectors[trial.number]

    def further(self, step: Further) -> Proposal:
        """Another evaluation of a candidate."""
        spec, trial = self.space.candidate(step.trial.params).spec, step.trial
        stage = self.schedule.stage(step.rung, step.seed)
        return Proposal(
            spec, Priced(spec, stage.recipe, self.prices), self.key(spec, stage), -1, dict(trial.params),
            dict(trial.distributions), {}, 1, {}, stage, step.rung, step.seed, self._folder(spec, stage), further=True,
            learned={key: value for key, value in candidate(trial).items() if key == "predicted"},
        )  # fmt: skip

    def key(self, spec: Spec, stage: Stage) -> str:
        """What is evaluated only once: a spec, on this data, by this recipe, as far as this."""
        parts = f"{spec.full} {stage.recipe.digest} {self.fingerprint} {stage.until or ''}"
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def _folder(self, spec: Spec, stage: Stage) -> str:
        usual = self.study.recipe
        differs = [name for name in ("steps", "length", "seed") if getattr(stage.recipe, name) != getattr(usual, name)]
        return "-".join([spec.full[:16], *(f"{name}{getattr(stage.recipe, name)}" for name in differs)])

    def adopt(self, number: int, proposal: Proposal) -> None:
        """Ties a proposal in the mirror to its trial on record."""
        self.mirrored[number] = proposal.mirrored

    def _broken(self, priced: Priced) -> str | None:
        for bound in self.study.bounds:
            if not bound.allows(bound.objective.before(priced)):
                return str(bound)
        return None

    def _cause(self, error: SpecError) -> str:
        cause = error.problems[0].cause
        return self.causes.setdefault(re.sub(r"\d+(\.\d+)?", "#", cause), cause)

    def _follow(self, trials: list[FrozenTrial]) -> None:
        """Brings the mirror up to the record."""
        for trial in trials:
            if trial.number in self.ended:
                continue
            if trial.number not in self.mirrored:
                self.mirrored[trial.number] = len(self.mirror.get_trials(deepcopy=False))
                self.mirror.add_trial(trial)
            elif trial.state.is_finished():
                self.mirror.tell(self.mirrored[trial.number], trial.values, state=trial.state)
            if trial.state.is_finished():
                self.ended.add(trial.number)


def sampler(study: Study, seed: int) -> BaseSampler:
    """The study's sampler for one proposal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _sampler(study, seed)


def _sampler(study: Study, seed: int) -> BaseSampler:
    match study.sampler:
        case "tpe":
            # One draw of all choices: one by one they would break most of the constraints that tie choices.
            return TPESampler(seed=seed, multivariate=True, group=True)
        case "nsga2":
            return NSGAIISampler(population_size=POPULATION, seed=seed)
        case "nsga3":
            return NSGAIIISampler(population_size=POPULATION, seed=seed)
        case "gp":
            return GPSampler(seed=seed, warn_independent_sampling=False)
        case "qmc":  # one sequence for the whole study
            return QMCSampler(seed=study.seed, scramble=True, warn_independent_sampling=False)
        case "cmaes":
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    raise AssertionError(study.sampler)


def _seed(seed: int, trials: int) -> int:
    digest = hashlib.sha256(f"{seed} {trials}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
