"""The error tree: drawn as it is, and every class says what a door must answer."""

import copy
import pickle
import re

import pytest

from playhead import errors
from playhead.errors import BadRequest, Conflict, LimitExceeded, PlayheadError, StoreError, TooManyLiveStreams

GRPC_STATUSES = {
    "ABORTED", "ALREADY_EXISTS", "DATA_LOSS", "FAILED_PRECONDITION", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND",
    "OUT_OF_RANGE", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE",
}  # fmt: skip


def _all_below(kind: type[PlayheadError]) -> list[type[PlayheadError]]:
    return [below for child in kind.__subclasses__() for below in (child, *_all_below(child))]


CLASSES = {
    kind.__name__: kind for kind in [PlayheadError, *_all_below(PlayheadError)] if kind.__module__ == "playhead.errors"
}


def _drawn() -> list[tuple[str, str | None]]:
    """(class, the class that it is drawn below), in the order of the picture."""
    drawn: list[tuple[str, str | None]] = []
    branch: str | None = None
    picture = (errors.__doc__ or "").split("\n\n")[1]
    for line in picture.splitlines():
        names = [name for name in re.findall(r"[A-Z]\w+", line) if name in CLASSES]
        if not drawn:
            drawn.append((names[0], None))
        elif line.startswith(("    ├──", "    └──")):
            branch = names[0]
            drawn += [(branch, "PlayheadError"), *((name, branch) for name in names[1:])]
        else:
            drawn += [(name, branch) for name in names]
    return drawn


def test_the_picture_shows_every_class_once() -> None:
    assert sorted(name for name, _ in _drawn()) == sorted(CLASSES)


def test_the_picture_shows_who_descends_from_whom() -> None:
    for name, above in _drawn():
        if above == "PlayheadError":
            assert CLASSES[name].__bases__ == (PlayheadError,)
        elif above:
            assert issubclass(CLASSES[name], CLASSES[above])


def test_codes_are_the_names_of_the_classes() -> None:
    kebab = {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower() for name in CLASSES if name != "PlayheadError"}
    assert {kind.code for kind in CLASSES.values()} == kebab | {"internal"}
    assert len({kind.code for kind in CLASSES.values()}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES.values())
def test_doors_have_a_sensible_answer(kind: type[PlayheadError]) -> None:
    assert kind.grpc_status in GRPC_STATUSES
    assert 400 <= kind.http_status <= 599
    branches = {BadRequest: {400, 422}, Conflict: {409, 422}, LimitExceeded: {413, 429}, StoreError: {500, 503, 507}}
    for branch, statuses in branches.items():
        if issubclass(kind, branch):
            assert kind.http_status in statuses
    if kind.http_status == 503:
        assert kind.retryable
        assert kind.grpc_status == "UNAVAILABLE"
    if kind.retryable:
        assert kind.http_status in {409, 429, 503, 507}
    if kind.http_status < 500:
        assert kind.grpc_status not in {"INTERNAL", "UNAVAILABLE"}


def test_facts_are_attributes() -> None:
    error = TooManyLiveStreams("at most 3", limit=3)
    assert (str(error), error.limit, error.facts) == ("at most 3", 3, {"limit": 3})
    with pytest.raises(AttributeError, match="tail"):
        _ = error.tail
    assert not hasattr(error, "stream_id")


@pytest.mark.parametrize("kind", CLASSES.values())
def test_errors_can_be_copied_and_sent(kind: type[PlayheadError]) -> None:
    error = kind("words", limit=3)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert (str(twin), twin.limit) == ("words", 3)
