"""The Pareto front, against Optuna's own."""

import random

import optuna
import pytest

from search.front import front


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"], ["minimize", "maximize", "minimize"]])
def test_the_front_is_optunas(directions):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, chance = optuna.create_study(directions=directions), random.Random(0)
    for number in range(60):
        trial = study.ask()
        if number % 7 == 3:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [float(chance.randrange(12)) for _ in directions])
    ours, theirs = front(study.trials, directions), study.best_trials
    assert {tuple(trial.values) for trial in ours} == {tuple(trial.values) for trial in theirs}
    assert len({tuple(trial.values) for trial in ours}) == len(ours)
    order = [trial.values[0] for trial in ours]
    assert order == sorted(order, reverse=directions[0] == "maximize")
