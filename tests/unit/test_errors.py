"""Errors: what they say, how they travel, and that the drawn tree is the real one."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from scoring import errors
from scoring.errors import ScoringError


def descendants(of: type[ScoringError]) -> Iterator[type[ScoringError]]:
    for child in of.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from descendants(child)


GROUPS = [kind for kind in descendants(ScoringError) if "__init__" not in vars(kind)]
"""Errors that only gather others."""
RAISED = [kind for kind in descendants(ScoringError) if "__init__" in vars(kind)]

SAMPLES: dict[Any, Any] = {
    str: "sample-text",
    int: 3,
    float: 0.25,
    Sequence[str]: ["one", "two"],
    str | None: "sample-text",
    int | None: 4,
    float | None: 0.5,
}


def sample(kind: type[ScoringError]) -> ScoringError:
    """An error of that kind, its arguments made up by type."""
    hints = typing.get_type_hints(kind.__init__)
    names = list(inspect.signature(kind).parameters)
    return kind(*[SAMPLES[hints[name]] for name in names])


def drawn() -> list[tuple[str, str]]:
    """(child, parent) as the module's docstring draws them."""
    path: list[str] = []
    pairs = []
    for line in str(errors.__doc__).splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        if depth:
            pairs.append((found[2], path[depth - 1]))
    return pairs


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    real = [(kind.__name__, kind.__bases__[0].__name__) for kind in descendants(ScoringError)]

    assert drawn() == real


def test_every_error_is_in_the_tree() -> None:
    named = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    outside = {
        kind.__name__
        for kind in named
        if issubclass(kind, BaseException) and not issubclass(kind, ScoringError)
    }

    assert outside == set()
    assert len(RAISED) > 25


@pytest.mark.parametrize("kind", RAISED)
def test_an_error_survives_pickle(kind: type[ScoringError]) -> None:
    error = sample(kind)

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), again.args, str(again)) == (kind, error.args, str(error))
    assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", RAISED)
def test_an_error_survives_celerys_json(kind: type[ScoringError]) -> None:
    """Celery keeps an exception's class and arguments, and calls the one with the other."""
    error = sample(kind)

    again = kind(*json.loads(json.dumps(error.args)))

    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", RAISED)
def test_the_arguments_are_kept_by_name(kind: type[ScoringError]) -> None:
    error = sample(kind)

    for name, value in zip(inspect.signature(kind).parameters, error.args, strict=True):
        kept = getattr(error, name)
        assert kept == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("kind", RAISED)
def test_a_message_names_what_was_found(kind: type[ScoringError]) -> None:
    text = str(sample(kind))

    assert "sample-text" in text or "one; two" in text
    assert "{" not in text.replace("{sample-text}", ""), "a placeholder was left unfilled"
    assert "  " not in text.replace("\n    ", "\n").replace("     ", ""), "two spaces in a row"


ANOTHER_SPEAKS = {"JobFileInvalid", "ModelFailed", "RunFailed", "ServiceDied"}
"""Errors that end in a reason which somebody else wrote."""


@pytest.mark.parametrize("kind", [kind for kind in RAISED if kind.__name__ not in ANOTHER_SPEAKS])
def test_a_message_is_made_of_sentences(kind: type[ScoringError]) -> None:
    text = str(sample(kind))

    assert text.endswith(".")
    assert len(text.split()) >= 8


NOTHING_AT_RISK = {"JobNotFound", "RunNotFound", "RunNotInState"}
"""Errors of a question, asked before anything was begun."""
SAFETY = "[Nn]othing (was|is)|earlier output stands|left alone|no row is lost|are safe|is recorded"
ADVICE = (
    "Check|Give|Use|Write|Run|Set|Add|Register|Mount|Let|See|name one|keep the|"
    "with --date|plan smaller|The model's signature|The rows, each with its reason"
)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in RAISED if kind.__name__ not in ANOTHER_SPEAKS | NOTHING_AT_RISK],
)
def test_a_message_says_whether_data_is_safe_and_what_to_do(kind: type[ScoringError]) -> None:
    text = str(sample(kind))

    assert re.search(SAFETY, text)
    if kind.__name__ != "ModelUnsupported":  # its reason holds the advice
        assert re.search(ADVICE, text)


def test_a_job_file_names_every_fault_with_its_file() -> None:
    error = errors.JobFileInvalid("nightly.toml", ["name is missing.", "key is 3."])

    assert str(error) == "nightly.toml: name is missing.\nnightly.toml: key is 3."


def test_a_missing_signature_shows_how_to_add_one() -> None:
    text = str(errors.SignatureMissing("models:/m/3"))

    assert "infer_signature(X, model.predict(X))" in text
    assert "mlflow.models.set_signature(uri, signature)" in text


def test_a_lost_lease_says_whether_another_attempt_or_the_end_of_the_run_took_it() -> None:
    assert "lost its lease to attempt 2" in str(errors.LeaseLost("r/1", 1, 2))
    assert "because the run ended" in str(errors.LeaseLost("r/1", 1, 1))


def test_an_unreachable_broker_says_that_a_recorded_run_must_not_be_submitted_again() -> None:
    recorded = str(errors.BrokerUnreachable("redis://h", "refused", "r1"))
    not_recorded = str(errors.BrokerUnreachable("redis://h", "refused"))

    assert "Run r1 is recorded" in recorded
    assert "do not submit it again" in recorded
    assert "Nothing was started" in not_recorded


def test_drift_that_fails_a_run_says_as_much_as_was_measured() -> None:
    whole = str(errors.DriftTooSevere("severe", "fare", 0.31, "drift.html"))
    bare = str(errors.DriftTooSevere("severe", None, None, "drift.html"))

    assert whole.startswith("drift is severe (most of all fare, 0.310) and the job says fail.")
    assert bare.startswith("drift is severe and the job says fail.")


@pytest.mark.parametrize("kind", GROUPS)
def test_a_group_has_a_docstring_and_members(kind: type[ScoringError]) -> None:
    assert kind.__doc__
    assert kind.__subclasses__()
