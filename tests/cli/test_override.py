"""`--set KEY=VALUE`: one setting, with the type it has; whatever else is typed is named and changes
nothing.
"""

import pytest
from ml_collections import ConfigDict

from mdmspeech.cli.experiment import override
from mdmspeech.errors import UserError


def config():
    settings = dict(
        stage="talker",
        capacity=0.75,
        distillation={},
        data=dict(parts=("open", "answers"), weights=(1.0, 2.0), batch=16, none=None),
        train=dict(steps=750, keep_best=""),
        talker=dict(label_shift=False, symbol_lookahead=(8, 4)),
        table=dict(rows=((1, 2), (3, 4))),
    )
    return ConfigDict(settings)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("train.steps=20", 20),
        ("capacity=0.5", 0.5),
        ("capacity=1", 1.0),
        ("talker.label_shift=TRUE", True),
        ("talker.label_shift=false", False),
        ("train.keep_best=held_out/token", "held_out/token"),
        ("train.keep_best=a=b", "a=b"),
        ("data.parts=mine", ("mine",)),
        ("data.parts=open,mine,", ("open", "mine")),
        ("data.weights=1,3", (1.0, 3.0)),
        ("talker.symbol_lookahead=0,0", (0, 0)),
    ],
)
def test_a_setting_keeps_its_type_and_no_other_changes(assignment, value):
    changed, key = config(), assignment.partition("=")[0]
    override(changed, assignment)
    expected = config().to_dict()
    group = expected
    *path, last = key.split(".")
    for name in path:
        group = group[name]
    group[last] = value
    assert repr(changed.to_dict()) == repr(expected)  # 1 is not 1.0 here


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("train.stepss=20", "no such setting; did you mean train.steps"),
        ("tran.steps=20", "no such setting; did you mean train.steps"),
        ("steps=20", "no such setting"),
        # the library's own index syntax: a part would be replaced
        ("data.parts[0]=mine", "no such setting; did you mean data.parts"),
        ("train.new=1", "no such setting"),  # the library would add it
        ("train.steps.more=1", "no such setting"),
        ("train..steps=1", "no such setting"),
        (".steps=1", "no such setting"),
        ("train.=1", "no such setting"),
        ("=1", "no such setting"),
        ("train", "a group of settings; give one of them, such as train."),
        ("talker=1", "a group of settings; give one of them, such as talker."),
        ("distillation=1", "no such setting"),
        ("train.steps=many", "expected a int"),
        ("train.steps=2.5", "expected a int"),
        ("train.steps", "expected a int"),
        ("talker.label_shift=1", "expected a bool"),
        ("data.weights=1,x", "expected a tuple"),
        ("data.none=1", "it is unset in the experiment"),
        ("table.rows=1,2", "it is a table"),
    ],
)
def test_anything_else_is_named_and_changes_nothing(assignment, told):
    unchanged = config()
    with pytest.raises(UserError) as refused:
        override(unchanged, assignment)
    assert told in str(refused.value) and str(refused.value).startswith("--set ")
    assert unchanged.to_dict() == config().to_dict()
