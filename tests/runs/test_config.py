"""Configurations: what a mistake says, what makes two runs the same, and that every file works."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common, tables
from feedseg import datasets, models
from feedseg.models.layers import arguments
from feedseg.runs import config as configs
from feedseg.runs import shipped
from feedseg.runs.directory import RunDir
from feedseg.runtime import mesh
from feedseg.runtime.errors import UserError
from feedseg.runtime.logs import Log
from feedseg.training import losses
from feedseg.training.setup import set_up
from tests.support import tiny
from tests.support.networks import shapes_of

FILES = sorted(
    path for path in (tiny.ROOT / "configs").glob("*.py") if path.stem not in ("common", "__init__")
)
TINY = str(Path(tiny.__file__))


def parsed(*arguments: str):
    return configs.parse_flags([f"--config={TINY}", *arguments])


def message(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        configs.parse_flags(list(arguments))
    text = str(error.value)
    assert "\n" not in text and error.value.exit_code == 2
    return text


# The part after the colon -----------------------------------------------------------------------

SPEC = dict(dataset="sstem", degrade=("none", "noise"), fold=0, rate=0.5, masked=False)


def test_arguments_are_typed_like_their_defaults():
    args = common.parse("fold=3,rate=1e-3,masked=true,dataset=wbc,degrade=noise", **SPEC)
    assert vars(args) == dict(dataset="wbc", degrade="noise", fold=3, rate=1e-3, masked=True)
    assert [type(value) for value in vars(args).values()] == [str, str, int, float, bool]


@pytest.mark.parametrize("arg", [None, "", ","])
def test_no_arguments_give_the_defaults(arg):
    assert vars(common.parse(arg, **SPEC)) == {**SPEC, "degrade": "none"}


@pytest.mark.parametrize("text, value", [("1", True), ("False", False), ("0", False)])
def test_booleans(text, value):
    assert common.parse(f"masked={text}", **SPEC).masked is value


BAD_ARGUMENTS = [
    ("flod=1", r"'flod' is unknown, did you mean 'fold'\? It takes: dataset, degrade, fold"),
    ("zzz=1", r"'zzz' is unknown\. It takes: dataset, degrade, fold, rate, masked\."),
    ("degrade=nose", r"degrade='nose': choose one of none, noise"),
    ("fold=1.5", r"fold='1\.5' is not of type int"),
    ("fold", r"fold='' is not of type int"),
    ("rate=fast", r"rate='fast' is not of type float"),
    ("masked=maybe", r"masked='maybe' is not of type bool"),
]


@pytest.mark.parametrize("arg, text", BAD_ARGUMENTS)
def test_bad_arguments_are_named(arg, text):
    with pytest.raises(ValueError, match=text):
        common.parse(arg, **SPEC)


def test_run_name():
    assert common.run_name(common.parse("", **SPEC)) == "sstem-fold0-rate0.5"
    args = common.parse("degrade=noise,fold=2,masked=1", **SPEC)
    assert common.run_name(args) == "sstem-noise-fold2-rate0.5-masked"


def test_model_arguments_are_checked():
    assert common.model("unet", filters=(4, 8)) == {**models.defaults("unet"), "filters": (4, 8)}
    with pytest.raises(ValueError, match=r"network unet takes name, filters, .* not fitlers"):
        common.model("unet", fitlers=(4, 8))


# The command line -------------------------------------------------------------------------------


def test_overrides_keep_their_types():
    config, workdir = parsed(
        "--config.train.epochs=7",
        "--config.model.filters=(2,4)",
        "--config.optimizer.learning_rate=1",
        "--config.augment.dihedral=False",
        "--config.data_dir=/with a space",
        "--workdir=runs/x",
    )
    assert (config.train.epochs, config.model.filters, workdir) == (7, (2, 4), "runs/x")
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.augment.dihedral is False and config.data_dir == "/with a space"
    assert parsed()[1] == ""


def test_overrides_are_those_of_the_call_not_of_the_process(monkeypatch):
    monkeypatch.setattr("sys.argv", ["feedseg", "--config.seed=5"])
    assert parsed("--config.train.epochs=9")[0].seed == 0


def test_require_gpu_is_a_short_form():
    assert parsed("--require-gpu")[0].runtime.require_gpu is True
    assert parsed()[0].runtime.require_gpu is False


def test_config_is_locked():
    config, _ = parsed()
    with pytest.raises(AttributeError, match="locked"):
        config.train.epohcs = 3
    with pytest.raises(AttributeError, match="epochs"):
        _ = config.train.epohcs


WRONG = [
    ("--config.trian.epochs=3", "unknown key 'trian'.*[Dd]id you mean \"train\""),
    ("--config.train.epohcs=3", "unknown key 'epohcs'.*[Dd]id you mean \"epochs\""),
    ("--config.loss.terms.frist.dice=1", "unknown key 'frist'"),
    ("--config.train.epochs=many", "--config.train.epochs=many: invalid literal for int"),
    ("--config.train.epochs=1.5", "--config.train.epochs=1.5"),
    ("--config.train.epochs", "Missing value for flag --config.train.epochs"),
    ("--config.train=3", "--config.train=3"),
    ("--wrokdir=x", "'wrokdir'.*[Dd]id you mean: workdir"),
    ("--confg=x", "'confg'.*[Dd]id you mean: config"),
    ("more", "unknown argument 'more'; overrides read --config.KEY=VALUE"),
]


@pytest.mark.parametrize("argument, text", WRONG)
def test_mistakes_are_named(argument, text):
    assert re.search(text, message(f"--config={TINY}", argument))


def test_config_is_asked_for():
    assert message().startswith("name a configuration: --config NAME, of aep, aep_irpe, ")
    assert "--config" in message("--config")


@pytest.mark.parametrize(
    "form", [("--config=configs/ape.py",), ("--config", "configs/ape.py:fold=1")]
)
def test_missing_file_lists_those_there_are(form, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    text = message(*form)
    assert text.startswith("configs/ape.py: no such configuration file, did you mean 'aep'?; ")
    assert all(path.stem in text for path in FILES)
    assert "common" not in text


def test_argument_of_the_file_is_checked(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    text = message("--config=configs/aep.py:flod=1")
    assert "'flod' is unknown, did you mean 'fold'?" in text
    assert "Traceback" not in text


def test_a_second_network_without_aep_is_refused(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    text = message("--config=configs/aep.py:model=net2,second=unet")
    assert "second=unet is a network 2 of model=aep, not of model=net2" in text


OWN_FILES = [
    ("def get_config(arg=None):\n    return (\n", r"'\(' was never closed \(mine\.py, line 2\)"),
    ("import no_such_module\n", "No module named 'no_such_module'"),
    ("x = 1\n", "no attribute 'get_config'"),
    (
        "from configs import common\ndef get_config(arg=None):\n"
        "    config = common.base()\n    config.train.epohcs = 3\n    return config\n",
        "unknown key 'epohcs'.*[Dd]id you mean \"epochs\"",
    ),
]


@pytest.mark.parametrize("content, text", OWN_FILES)
def test_mistakes_in_a_users_own_file(tmp_path, monkeypatch, content, text):
    monkeypatch.syspath_prepend(str(tiny.ROOT))
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # a config read before
    path = tmp_path / "my configs" / "mine.py"
    path.parent.mkdir()
    path.write_text(content)
    assert re.search(text, message(f"--config={path}"))


def test_a_folder_with_a_space(tmp_path, monkeypatch):
    path = tmp_path / "my configs" / "mine.py"
    path.parent.mkdir()
    path.write_text(Path(TINY).read_text())
    for form in ([f"--config={path}"], ["--config", str(path)]):
        assert configs.parse_flags(form)[0].experiment == "tiny"


# Two configurations -----------------------------------------------------------------------------


def test_plain_form_and_back():
    config = tiny.get_config(loss__terms={"final": {"cross_entropy": 1.0, "dice": 0.5}})
    plain = configs.to_plain(config)
    assert plain["model"]["filters"] == [4]
    back = configs.from_plain(plain)
    assert back.to_dict() == config.to_dict() and back.is_locked
    assert back.model.filters == (4,) and isinstance(back.data.percentiles, tuple)


def test_machine_settings_are_no_part_of_a_run():
    one = configs.to_plain(tiny.get_config())
    there = configs.to_plain(
        tiny.get_config(data_dir="/elsewhere", runtime__devices=4, runtime__steps_per_dispatch=0)
    )
    assert configs.identity(one) == configs.identity(there)
    assert configs.config_hash(one) == configs.config_hash(there)
    assert {"data_dir", "runtime"} & set(configs.identity(one)) == set()


@pytest.mark.parametrize("change", [dict(seed=1), dict(train__epochs=4), dict(data__crop_size=16)])
def test_everything_else_is(change):
    one, other = (configs.to_plain(tiny.get_config(**c)) for c in ({}, change))
    assert configs.config_hash(one) != configs.config_hash(other)
    assert len(configs.config_hash(one)) == 16


def test_differences_name_every_leaf():
    old = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": 0}
    new = {"a": 1, "b": {"c": [1, 3], "d": "x"}, "new": {"e": 2}}
    assert configs.differences(old, new) == [
        "b.c: [1, 2] -> [1, 3]",
        "gone: 0 -> None",
        "new: None -> {'e': 2}",
    ]
    assert configs.differences(old, old) == []


# Every file -------------------------------------------------------------------------------------


def test_every_network_builds_with_its_defaults():
    for name in models.names():
        arguments = models.defaults(name)
        assert arguments["name"] == name
        model = models.build(3, tiny.get_config(model=arguments).model)
        assert model.halo % model.stride == 0


def test_unknown_networks_and_arguments():
    with pytest.raises(UserError, match=r"'unett' is unknown, did you mean 'unet'\? There are:"):
        models.build(3, {"name": "unett"})
    with pytest.raises(UserError, match=r"'zzz' is unknown\. There are: aep"):
        models.build(3, {"name": "zzz"})
    with pytest.raises(UserError, match=r"does not fit network 'unet': .*fitlers"):
        models.build(3, {**models.defaults("unet"), "fitlers": 3})


def test_every_data_set_is_known_by_name():
    required = [
        "load",
        "CLASSES",
        "COLORS",
        "LICENCE",
        "CITATION",
        "FOLDERS",
        "LAYOUT",
        "OBTAIN",
    ]
    for name in datasets.NAMES:
        module = datasets.module(name)
        missing = [each for each in required if not hasattr(module, each)]
        assert not missing, f"{name} has no {missing}"
        config = common.base()
        common.use_dataset(config, name)  # raises for a key that no configuration has
        for key, changes in getattr(module, "PROTOCOLS", {}).items():
            assert key in ("random", "sections", "paper", "aep")
            config.update(changes)
        assert datasets.border_class(name) in ("", *module.CLASSES)
    with pytest.raises(UserError, match=r"'irp' is unknown, did you mean 'irpe'\? There are: dsb"):
        datasets.module("irp")
    with pytest.raises(UserError, match=r"'zzz' is unknown\. There are: dsb2018"):
        datasets.module("zzz")


def test_there_are_configurations():
    assert {path.stem for path in FILES} >= {"aep", "aep_irpe", "unet"}


ARGUMENTS = [
    "aep.py:second=feedback_unet",
    "aep.py:second=feedback_unet,ensemble=stacked",
    "aep.py:second=feedback_attention,ensemble=single",
    "aep.py:second=unet,ensemble=fixed,dataset=mouse_liver",
    "feedback_unet.py:rounds=3,layout=none,recipe=paper,dataset=mouse_liver",
    "feedback_unet.py:unit=rcl_shared,layout=code10,split=sections,fold=2",
    "feedback_unet.py:connection=self,carry=false,rounds=1",
    "feedback_attention.py:connection=light,width=64,location=one_conv,recipe=paper",
    "feedback_attention.py:connection=source_target,kv_pool=4",
    "baseline.py:model=ru_net,width=4,recipe=paper,dataset=sstem",
    "baseline.py:model=r2u_net,width=4,protocol=aep,dataset=mouse_liver",
    "aep.py:source=softmax,recipe=modern",
    "aep.py:multiplier=2",
    "baseline.py:model=unet_plus_plus,deep_supervision=true,width=4",
    "baseline.py:model=unet_plus_plus,form=keras,width=4,recipe=aep",
    "baseline.py:model=attention_unet,form=oktay,deep_supervision=true,width=4",
    "baseline.py:model=unet3plus,deep_supervision=true,width=4",
    "baseline.py:model=saunet",
    "baseline.py:model=sa_unet",
    "unet_original.py:width=4",
    "blood_cell.py:mask=grey,width=4,split=90",
    "blood_cell.py:foreground=nucleus,width=4",
    "blood_cell.py:dataset=isbi2012,mask=grey_inexact,width=4",
]
REFUSED = [
    ("baseline.py:model=unet,form=keras", "form=keras: unet has no form"),
    ("baseline.py:model=aep_net,width=4", "width=4: aep_net has fixed widths"),
    ("baseline.py:model=ru_net,deep_supervision=true", "ru_net has no deep_supervision"),
    ("blood_cell.py:mask=grey,dataset=isbi2012", "mask=grey,foreground=cell: for dataset=wbc only"),
    ("blood_cell.py:mask=grey,foreground=nucleus", "mask=grey: shows the whole cell"),
]


@pytest.mark.parametrize(("argument", "text"), REFUSED)
def test_arguments_that_do_not_go_together(argument, text, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    assert text in message(f"--config=configs/{argument}")


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_arguments_make_a_network_with_the_outputs_of_its_loss(argument, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    config, _ = configs.parse_flags([f"--config=configs/{argument}"])
    model = models.build(2, config.model)
    (logits, out), _ = shapes_of(model, (1, model.stride, model.stride, 1))
    maps = [
        name
        for name, key in (("mask", "mask_values"), ("border", "border_class"))
        if config.data[key]
    ]
    losses.check_terms(config.loss.terms.to_dict(), losses.loss_outputs(logits, out), maps)


PROGRAM = ("model", "loss", "optimizer", "augment")


def program_of(config) -> str:
    return json.dumps([config[part].to_dict() for part in PROGRAM], sort_keys=True)


@pytest.fixture(scope="module")
def first_file() -> dict[str, Path]:
    """The first file with a program. Those behind the published tables train in test_tables."""
    found = {}
    for path in sorted({method.config.split(":")[0] for method in tables.METHODS.values()}):
        config, _ = configs.parse_flags([f"--config={tiny.ROOT / path}"])
        found.setdefault(program_of(config), tiny.ROOT / path)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_trains(path, tmp_path, first_file):
    """Its defaults load; its network, loss, optimizer and augmentation take a step.

    Of two files with the same network, loss, optimizer and augmentation one takes it for both; the
    runs behind the published tables are tested elsewhere.
    """
    config, _ = configs.parse_flags([f"--config={path}"])
    assert config.experiment == path.stem
    assert config.run_name
    in_a_table = path in first_file.values()
    if first_file.setdefault(program_of(config), path) != path or in_a_table:
        return
    config.data.update(name="synthetic", synthetic_count=9, synthetic_size=16, crop_size=16)
    config.data.synthetic_classes = 2  # fewer filters in AEP, so less to compile
    if config.data.mask_values:
        config.data.update(foreground=(), mask_values=(0.0, 1.0))
    config.split.update(scheme="thirds", folds=3, fold=0)
    config.train.update(epochs=1, batch_size=2)
    if "filters" in config.model:  # fewer levels are compiled sooner
        config.model.filters = config.model.filters[:3]
    config.optimizer.warmup_epochs = 0.0  # its first step would change nothing
    config.runtime.devices = 1
    job, state = set_up(config, RunDir(tmp_path), Log())
    before = jax.device_get(state.params)
    state, loss = mesh.compile_train(job.mesh, job.step)(state, job.train_items)
    assert int(state.step) == 1 and np.isfinite(loss)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, dict(state.params))
    assert any(jax.tree.leaves(changed))


def test_a_stored_configuration_of_an_earlier_version_gets_the_later_keys():
    stored = configs.to_plain(parsed()[0])
    earlier = stored | {part: {**stored[part]} for part in configs._LATER}
    for part, keys in configs._LATER.items():
        for key in keys:
            del earlier[part][key]
    assert configs.to_plain(configs.from_plain(earlier)) == stored
    assert configs.config_hash(earlier) == configs.config_hash(stored)
    assert not configs.differences(configs.identity(earlier), configs.identity(stored))
    assert configs.config_hash(configs.to_plain(parsed("--config.split.group=a")[0])) != (
        configs.config_hash(stored)
    )


# Values that make no sense ----------------------------------------------------------------------

SENSELESS = {
    "optimizer.learning_rate=-1": r"optimizer\.learning_rate=-1\.0: above 0$",
    "optimizer.learning_rate=nan": r"learning_rate=nan: above 0$",
    "optimizer.learning_rate=inf": r"learning_rate=inf: above 0$",
    "optimizer.beta2=1": r"beta2=1\.0: at least 0 and below 1$",
    "train.epochs=0": r"train\.epochs=0: from 1 to 1000000$",
    "split.folds=111111111111111111111": r"split\.folds=1{21}: from 1 to 1000$",
    "train.ema_decay=1": r"ema_decay=1\.0: at least 0 and below 1$",
    "train.compute_dtype=half": r"compute_dtype='half': choose float32 or bfloat16$",
    "seed=-1": r"seed=-1: from 0 to 2147483647$",
    "augment.rotate_deg=-5": r"rotate_deg=-5\.0: from 0 to 180$",
    "data.percentiles=(1,)": r"percentiles=\(1,\): a list of 2",
    "split.counts=(1,2,-3)": r"split\.counts\[2\]=-3: from 0 to 1000000$",
    "loss.terms.final.cross_entropy=-1": r"loss\.terms\.final\.cross_entropy=-1\.0: at least 0$",
    "model.filters=(0,)": r"model\.filters\[0\]=0: from 1 to 65536$",
    "model.dropout=1": r"model\.dropout=1\.0: at least 0 and below 1$",
}


@pytest.mark.parametrize("change", SENSELESS)
def test_values_without_sense_are_named(change):
    assert re.search(SENSELESS[change], message(f"--config={TINY}", f"--config.{change}"))


def test_limits_of_gray_values_rise():
    config = tiny.get_config(data__normalization="image_percentile", data__percentiles=(99.0, 1.0))
    with pytest.raises(UserError, match=r"data\.percentiles=\(99\.0, 1\.0\): two rising numbers"):
        datasets.load(config)


def test_every_number_has_limits():
    """And each key that has limits is one."""
    keys, flat = shipped.keys(), tiny.get_config().to_dict()
    del flat["model"]

    def numbers(part: dict, prefix: str = ""):
        for name, value in part.items():
            if isinstance(value, dict):
                yield from numbers(value, f"{prefix}{name}.")
            elif isinstance(value, int | float | tuple) and not isinstance(value, bool):
                yield f"{prefix}{name}"

    found = {re.sub(r"(?<=loss\.terms).*", "", key) for key in numbers(flat)}
    assert found == set(keys.allowed()) - {"data.crops", "train.compute_dtype", "runtime.together"}
    for name in models.names():
        for key, default in models.defaults(name).items():
            if key not in ("name", "network2"):
                spec = arguments.specification(key, default)
                assert not spec.problem(default, key), "its own default"


BAD_STORED = {
    r"config\.json: optimizer\.learning_rate=-1: above 0; restore": (
        "optimizer",
        "learning_rate",
        -1,
    ),
    r"config\.json: model\.filters='x': a list": ("model", "filters", "x"),
    r"config\.json: lacks 'train' or holds another type": ("train", None, 1),
    r"config\.json: cannot be read \(nested more than 64": (None, None, "[" * 10**5),
    r"config\.json: cannot be read \(no JSON object": (None, None, "[]"),
}


@pytest.mark.parametrize("text", BAD_STORED)
def test_stored_configurations_are_checked(tmp_path, text):
    part, key, value = BAD_STORED[text]
    plain = configs.to_plain(tiny.get_config())
    if part and key:
        plain[part][key] = value
    elif part:
        plain[part] = value
    (tmp_path / "config.json").write_text(json.dumps(plain) if part else value)
    with pytest.raises(UserError, match=text):
        RunDir(tmp_path).stored_config()
