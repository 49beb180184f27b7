"""What the package does and stores is what it did and stored when the facts were recorded."""

import json
import shutil

import numpy as np
import pytest

from feedseg.runtime.logs import Log
from feedseg.training import train
from tests.support import tiny
from tests.unchanged import facts
from tests.unchanged.record import HERE

RECORDED = json.loads((HERE / "facts.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("key", "function"),
    [
        ("config_hashes", facts.config_hashes),
        ("planned_runs", facts.planned_runs),
        ("parameter_trees", facts.parameter_trees),
        ("command_options", facts.command_options),
    ],
)
def test_stored_names_and_numbers(key, function):
    found = json.loads(json.dumps(function()))
    for name, expected in RECORDED[key].items():
        assert found[name] == expected, name
    assert found.keys() == RECORDED[key].keys()


def test_bundled_models_find_the_same_classes():
    for name, fractions in facts.fractions_of_bundled_models().items():
        np.testing.assert_allclose(fractions, RECORDED["bundled_models"][name], atol=2e-3)


def assert_equal_training(found: dict, expected: dict) -> None:
    """Equal to the rounding of another machine."""
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=2e-3)
    assert found["parameters"].keys() == expected["parameters"].keys()
    for name, values in found["parameters"].items():
        np.testing.assert_allclose(
            values, expected["parameters"][name], rtol=5e-3, atol=2e-4, err_msg=name
        )


@pytest.mark.long
@pytest.mark.parametrize("name", facts.TRAININGS)
def test_trainings(name, tmp_path):
    assert_equal_training(facts.training(name, tmp_path), RECORDED["trainings"][name])


def test_a_run_that_an_older_version_stopped_goes_on(tmp_path):
    shutil.unpack_archive(HERE / "stopped.zip", tmp_path / "run")
    train.run(tiny.get_config(), tmp_path / "run", Log())
    assert "continuing at step 6" in (tmp_path / "run" / "log.txt").read_text()
    assert_equal_training(facts.summary(tmp_path / "run"), RECORDED["whole_run"])
