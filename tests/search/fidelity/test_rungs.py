"""Successive halving: quotas are kept by any number of workers, a restart changes nothing, and compute is saved."""

import heapq
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from archspec.errors import SpecError
from search.fidelity.rungs import Candidate, Halving, Promote, decide
from search.recipe import Recipe

RECIPE = Recipe(steps=270, length=64)
HALVING = Halving(least=30, reduction=3, finalists=4)
LEVELS = HALVING.levels(RECIPE)


def test_levels_lead_to_the_whole_training():
    assert LEVELS == (30, 90, 270)
    assert Halving(least=31).levels(RECIPE) == (90, 270)
    assert Halving(least=1, reduction=2).levels(Recipe(steps=9)) == (1, 2, 3, 5, 9)
    assert Halving(of="length", least=16, reduction=2).levels(RECIPE) == (16, 32, 64)


@pytest.mark.parametrize(
    ("halving", "recipe", "said"),
    [
        (Halving(least=270), RECIPE, "the first rung has 270 steps, the whole training 270"),
        (Halving(of="length", least=8), Recipe(), "need the length of the whole"),
    ],
)
def test_rungs_that_are_none_are_refused(halving, recipe, said):
    with pytest.raises(SpecError, match=said):
        halving.levels(recipe)


def test_a_stage_pauses_a_run_or_is_a_shorter_one():
    assert [HALVING.stage(RECIPE, rung).until for rung in range(3)] == [30, 90, None]
    assert all(HALVING.stage(RECIPE, rung).recipe == RECIPE for rung in range(3))
    part = Halving(of="data", least=90, reduction=3).stage(RECIPE, 0)
    assert (part.until, part.recipe.steps, part.recipe.share) == (None, 90, 1 / 3)
    short = Halving(of="length", least=16, reduction=2).stage(RECIPE, 0)
    assert short.until is None and short.recipe.length == 16 and short.recipe.steps == RECIPE.steps


class World:
    """Candidates whose losses fall as power laws; larger ones end lower and cost more."""

    def __init__(self, seed, count=120, noise=0.01):
        chance = np.random.default_rng(seed)
        self.cost = np.exp(chance.uniform(0, 3, count))
        self.end = 2 + 1.5 * self.cost**-0.5 + chance.gamma(2, 0.15, count)
        self.fall, self.power = chance.uniform(1, 2, count), chance.uniform(0.4, 0.6, count)
        self.reference = np.array([4.5, 3.5])
        self.noise = noise * chance.standard_normal((count, len(LEVELS)))

    def told(self, number, rung):
        loss = self.end[number] + self.fall[number] * (LEVELS[rung] ** -self.power[number] - 270 ** -self.power[number])
        return (loss + self.noise[number, rung], self.cost[number])

    def hypervolume(self, numbers):
        points = np.array([(self.end[n], math.log(self.cost[n])) for n in numbers])
        return compute_hypervolume(np.minimum(points, self.reference), self.reference)


def run(world, starts, workers=1, seconds=None, restart=False):
    """Plays a study; gives the candidates and the steps that were trained."""
    chance = random.Random(0)
    known: dict[str, Candidate] = {}
    busy: list = []
    clock = spent = 0.0
    while True:
        record = list(known.values())
        if restart:  # what a new process reads is all there is
            record = [Candidate(c.key, dict(c.told), c.running, c.failed) for c in record]
        asked = decide(record, rungs=3, reduction=3, starts=starts, finalists=4)
        if asked in ("wait", "done") or len(busy) == workers:
            if not busy:
                return known, spent
            clock, _, key, rung = heapq.heappop(busy)
            c = known[key]
            known[key] = Candidate(key, {**c.told, rung: world.told(int(key), rung)})
            continue
        key, rung = (asked.key, asked.rung) if isinstance(asked, Promote) else (str(len(known)), 0)
        before = known.get(key, Candidate(key))
        assert before.running is None and rung not in before.told and (rung == 0 or rung - 1 in before.told)
        known[key] = Candidate(key, before.told, running=rung)
        steps = LEVELS[rung] - (LEVELS[rung - 1] if rung else 0)
        spent += steps
        heapq.heappush(busy, (clock + steps * chance.uniform(0.5, 2), len(known), key, rung))


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_quotas_are_kept_by_any_number_of_workers(workers):
    known, spent = run(World(0), 120, workers)
    counts = [sum(rung in c.told for c in known.values()) for rung in range(3)]
    # Each worker may promote the best of those that were there; one that others passed later was promoted as well.
    assert counts[0] == 120 and counts[1] >= 40 and counts[2] >= counts[1] // 3
    assert spent < 0.55 * 120 * 270


def test_a_restart_changes_no_decision():
    once, spent = run(World(1), 60)
    again, spent_again = run(World(1), 60, restart=True)
    assert once == again and spent == spent_again


def test_more_is_found_with_the_compute_of_whole_trainings():
    """The same steps, as many candidates trained to the end as they pay for."""
    ours, whole = [], []
    for seed in range(5):
        world = World(seed)
        known, spent = run(world, 120, workers=4)
        ours.append(world.hypervolume([int(key) for key, c in known.items() if 2 in c.told]))
        whole.append(world.hypervolume(range(int(spent // 270))))
        ours[-1] /= world.hypervolume(range(120))
        whole[-1] /= world.hypervolume(range(120))
    assert np.mean(ours) > 0.99 and np.mean(whole) < 0.97, (np.mean(ours), np.mean(whole))


def test_small_decoders_are_sorted_out_early():
    """Losses of decoders that were trained, after 27, 81 and all 243 steps, and their parameters."""
    stored = json.loads((Path(__file__).parent / "data" / "curves.json").read_text())["runs"]
    ours, whole, compute = [], [], []
    runs = [run for run in stored if run["seed"] == 0]
    world = World(0)
    world.told = lambda n, rung: (dict(runs[n]["curve"])[(27, 81, 243)[rung]], runs[n]["parameters"])
    world.end = np.array([run["curve"][-1][1] for run in runs])
    world.cost = np.array([run["parameters"] for run in runs])
    world.reference = np.array([world.end.max(), math.log(world.cost.max())])
    for seed in range(20):
        random.Random(seed).shuffle(runs)
        world.end = np.array([run["curve"][-1][1] for run in runs])
        world.cost = np.array([run["parameters"] for run in runs])
        known, spent = run(world, len(runs))
        ours.append(world.hypervolume([int(key) for key, c in known.items() if 2 in c.told]))
        whole.append(world.hypervolume(range(int(spent // 270))))
        compute.append(spent / 270 / len(runs))
    everything = world.hypervolume(range(len(runs)))
    assert np.mean(compute) < 0.4
    assert np.mean(ours) > 0.92 * everything and np.mean(whole) < 0.87 * everything


def test_failures_take_no_place_and_are_not_tried_again():
    told = [Candidate(str(n), {0: (float(n), 1.0)}) for n in range(6)]
    assert decide(told, rungs=2, reduction=3, starts=9) == Promote("0", 1)
    told[0] = Candidate("0", {0: (0.0, 1.0)}, failed=True)
    assert decide(told, rungs=2, reduction=3, starts=9) == Promote("1", 1)
    told[1] = Candidate("1", {0: (1.0, 1.0)}, running=1)
    assert decide(told, rungs=2, reduction=3, starts=9) == "start"
    assert decide(told, rungs=2, reduction=3, starts=6) == "wait"
    told[1] = Candidate("1", {0: (1.0, 1.0), 1: (0.9, 1.0)})
    assert decide(told, rungs=2, reduction=3, starts=6) == "done"
    assert decide(told, rungs=2, reduction=3, starts=6, finalists=2) == Promote("2", 1)
    assert decide([], rungs=2, reduction=3, starts=1) == "start"
