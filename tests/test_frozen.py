"""`frozen` beside the dataclasses that it stands for."""

import copy
import dataclasses
import pickle

import pytest

from gpuresample.frozen import frozen


@frozen()
class Ours:
    a: int
    b: tuple
    c: float = 2.5
    d: object = None

    @property
    def both(self):
        return self.a + self.c


@dataclasses.dataclass(frozen=True)
class Theirs:
    a: int
    b: tuple
    c: float = 2.5
    d: object = None

    @property
    def both(self):
        return self.a + self.c


@frozen()
class Named:
    values: int
    defaults: int = 1
    names: int = 2
    cls: int = 3
    made: int = 4
    lines: int = 5
    args: int = 6


@frozen(eq=False)
class Checked:
    n: int

    def __post_init__(self):
        if self.n < 0:
            raise ValueError("n must not be negative")


GIVEN = (
    ((1, (2,)), {}), ((1,), {"b": (2,)}), ((), {"d": "x", "b": (), "a": 3}), ((1, (2,), 3.0, 4), {}),
    ((1, (2,)), {"c": float("nan")}),
)  # fmt: skip
WRONG = (
    ((), {}), ((1,), {}), ((1, 2, 3, 4, 5), {}), ((1, 2), {"a": 1}), ((1, 2), {"e": 1}), ((1,), {"e": 1}),
    ((), {"a": 1, "c": 2}), ((1, 2, 3), {"c": 3}),
)  # fmt: skip


@pytest.mark.parametrize(("args", "keywords"), GIVEN)
def test_as_a_dataclass(args, keywords):
    ours, theirs = Ours(*args, **keywords), Theirs(*args, **keywords)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert vars(ours) == vars(theirs)
    assert (hash(ours), ours.both) == (hash(theirs), theirs.both) or ours.both != ours.both
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert [(f.name, f.type, f.default) for f in dataclasses.fields(Ours)] == [
        (f.name, f.type, f.default) for f in dataclasses.fields(Theirs)
    ]
    for again in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), dataclasses.replace(ours)):
        assert again is not ours
        assert repr(again) == repr(ours)
    assert vars(dataclasses.replace(ours, b=7)) == vars(dataclasses.replace(theirs, b=7))
    match ours:
        case Ours(a, b):
            assert (a, b) == (theirs.a, theirs.b)


@pytest.mark.parametrize(("args", "keywords"), WRONG)
def test_refuses_what_a_dataclass_refuses(args, keywords):
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError, match=f"{kind.__name__}"):
            kind(*args, **keywords)
    with pytest.raises(TypeError):
        dataclasses.replace(Ours(1, ()), nothing=1)


def test_fields_may_have_the_names_that_its_own_code_has():
    assert vars(Named(10)) == {"values": 10, "defaults": 1, "names": 2, "cls": 3, "made": 4, "lines": 5, "args": 6}
    assert repr(dataclasses.replace(Named(10), args=7, cls=8)) == (
        "Named(values=10, defaults=1, names=2, cls=8, made=4, lines=5, args=7)"
    )


def test_equal_by_its_fields_or_by_itself():
    assert Ours(1, ()) == Ours(1, (), 2.5) != Ours(1, (), 2.0)
    assert Ours(1, ()) != Theirs(1, ())
    assert len({Ours(1, ()), Ours(1, ()), Ours(2, ())}) == 2
    one = Checked(1)
    assert one != Checked(1)
    assert len({one, one, Checked(1)}) == 2


def test_is_read_only():
    made = Ours(1, ())
    with pytest.raises(dataclasses.FrozenInstanceError, match="Ours is read-only: a cannot be set"):
        made.a = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot be deleted"):
        del made.a
    assert made.a == 1


def test_of_all_that_are_loaded_the_fields_are_known():
    import gpuresample.engines.cpu.engine
    import gpuresample.files.job  # noqa: F401

    found = [c for c in object.__subclasses__() if c.__setattr__ is Ours.__setattr__]
    ours = [c for c in found if c.__module__.startswith("gpuresample.")]
    assert len(ours) > 20
    for kind in ours:
        assert [f.name for f in dataclasses.fields(kind)] == list(kind.__match_args__) == list(kind.__annotations__)


def test_checks_itself():
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)
    with pytest.raises(ValueError, match="negative"):
        dataclasses.replace(Checked(1), n=-1)
