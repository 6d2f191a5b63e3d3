from __future__ import annotations

import numpy as np
import optuna
import pytest

from search.frontier import FrontierSampler
from search.frontier.hypervolume import hypervolume


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def two(trial: optuna.Trial) -> tuple[float, float]:
    """ZDT1 (Zitzler et al. 2000) whose other variables are of all types."""
    x = trial.suggest_float("x", 0, 1)
    others = [trial.suggest_float(f"y{number}", 0, 1) for number in range(3)]
    option = trial.suggest_categorical("option", ["far", "near", "middle"])
    width = trial.suggest_int("width", 1, 64, log=True)
    g = 1 + sum(others) + {"near": 0, "middle": 0.5, "far": 1}[option] + abs(np.log2(width) - 3) / 3
    return x, g * (1 - np.sqrt(x / g))


def run(sampler: optuna.samplers.BaseSampler, count: int) -> float:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(two, count)
    return hypervolume(np.array([trial.values for trial in study.trials]), np.array([1.1, 6.0]))


def test_two_objectives_better_than_random_and_tpe() -> None:
    ours = run(FrontierSampler(0), 32)
    assert ours > 1.1 * run(optuna.samplers.TPESampler(seed=0), 32)
    assert ours > 1.25 * run(optuna.samplers.RandomSampler(0), 32)
    assert ours < 1.1 * 6 - 1 / 3  # the whole front


def test_one_objective_that_is_maximised() -> None:
    study = optuna.create_study(direction="maximize", sampler=FrontierSampler(1))
    study.optimize(lambda t: -((t.suggest_float("x", -5, 5) - 1) ** 2) - (t.suggest_float("y", -5, 5) + 2) ** 2, 28)
    assert study.best_value > -0.02


def test_a_study_with_the_same_seed_is_the_same() -> None:
    params = []
    for _ in range(2):
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=FrontierSampler(3))
        study.optimize(two, 14)
        params.append([trial.params for trial in study.trials])
    assert params[0] == params[1]


def test_no_point_twice_while_there_are_others_even_when_many_run() -> None:
    study = optuna.create_study(sampler=FrontierSampler(4))

    def suggest(trial: optuna.Trial) -> tuple[str, int]:
        return trial.suggest_categorical("a", list("abcd")), trial.suggest_int("b", 1, 6)

    first = study.ask()
    points = [suggest(first)]
    study.tell(first, 0.0)
    for _ in range(4):
        running = [study.ask() for _ in range(5)]  # before any of them suggests
        points += [suggest(trial) for trial in running]
        for number, trial in enumerate(running):
            study.tell(trial, float(number)) if number else study.tell(trial, state=optuna.trial.TrialState.FAIL)
    rest = [study.ask() for _ in range(3)]
    points += [suggest(trial) for trial in rest]
    assert len(set(points)) == len(points) == 24
    suggest(study.ask())  # all were seen


def test_choices_that_not_all_trials_have_are_drawn_alone() -> None:
    def nested(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["flat", "deep"])
        return float(trial.suggest_int("layers", 1, 8)) if kind == "deep" else 9.0

    study = optuna.create_study(sampler=FrontierSampler(5))
    study.optimize(nested, 20)
    assert study.best_value < 9
    study.optimize(lambda trial: 1.0, 1)  # no parameter in all of them any more
    study.optimize(nested, 1)


@pytest.mark.parametrize(
    "distribution",
    [
        optuna.distributions.FloatDistribution(-1, 2),
        optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        optuna.distributions.FloatDistribution(0, 1.05, step=0.25),
        optuna.distributions.IntDistribution(3, 17, step=2),
        optuna.distributions.IntDistribution(1, 1000, log=True),
        optuna.distributions.CategoricalDistribution([None, "b", 3]),
    ],
)
def test_drawn_and_varied_values_are_in_their_distribution(distribution: optuna.distributions.BaseDistribution) -> None:
    from search.frontier.flat import Parameters

    problem, generator = Parameters({"x": distribution}, 1), np.random.default_rng(0)
    vectors = problem.draw(generator, 500)
    for rows in (vectors, problem.mutate(generator, vectors), problem.cross(generator, vectors, vectors[::-1])):
        for row in rows:
            params = problem.params(row)
            assert distribution._contains(distribution.to_internal_repr(params["x"]))
            assert problem.vector(params) == pytest.approx(row.tolist())
    assert len(np.unique(vectors)) >= min(3, 500)
