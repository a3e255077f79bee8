"""Configurations: what is wrong is said in one line that helps; what is right survives a round trip."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from jneuro.core.config import ConfigError, config_files, content_hash, find_config, to_yaml
from jneuro.experiment.fit_plan import load_fit
from jneuro.experiment.plan import load_plan
from jneuro.experiment.sweeping import load_sweep
from jneuro.recordings import Recording, RecordingWriter


def load_experiment(path, overrides=()):
    """The resolved configuration."""
    return load_plan(path, overrides).config


TINY = """\
name: tiny
simulation:
  simulator: {name: brunel, preset: forecasting_report}
  runs: 10
  duration_ms: 400
  snapshot_every_ms: 50
windows: {length_ms: 20, discard_ms: 50, stride_ms: 5}
models:
  m: {model: {name: compact, lags: 4}}
train: {epochs: 1, optimizer: {name: adam, learning_rate: 1e-3}}
evaluate:
  baselines: [persistence, {name: ar, order: 5}, var, lookup]
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A finished recording of 10 runs, 300 ms, 7 neurons."""
    path = tmp_path_factory.mktemp("data") / "recording.zarr"
    writer = RecordingWriter(path, {})
    values = np.random.default_rng(0).normal(size=(10, 300, 7)).astype(np.float32)
    state = {"step": np.zeros(10, np.int32)}
    words = {"step": 1.0, "record_every": 1, "frames": 300, "unit_pairs": (("v", "mV"),)}
    writer.append(Recording({"v": values}, np.asarray(True), np.asarray(0), state, **words))
    writer.finish()
    return path


# One override each, and what the message must say beside "command line": the key, the value and the remedy.
OVERRIDES = {
    "trian.epochs=3": ("unknown key 'trian'; did you mean 'train'",),
    "train.epoch=3": ("train: unknown key 'epoch'; did you mean 'epochs'",),
    "train.optimizer.learning_rat=3": ("train.optimizer: unknown key 'learning_rat'; did you mean 'learning_rate'",),
    "windows.fractions.valid=0.1": ("windows.fractions: unknown key 'valid'; did you mean 'validation'",),
    "models.m.model.lag=3": ("models.m.model: unknown key 'lag'; did you mean 'lags'",),
    "models.m.trian.epochs=3": ("models.m: unknown key 'trian'; did you mean 'train'",),
    "simulation.simulator.tau=5": ("simulation.simulator: brunel: unknown parameter 'tau'; did you mean 'tau_m'",),
    "simulation.simulator.connections=5": ("unknown parameter 'connections'",),
    "simulation.simulator.tau_m=-1": ("simulation.simulator", "tau_m = -1.0 ms lies outside (0, inf) ms", "membrane"),
    "simulation.simulator.tau_m=fast": ("tau_m = 'fast' must be a number",),
    "simulation.simulator.tau_m=null": ("tau_m = None must be a number",),
    "simulation.simulator.n_excitatory=2.5": ("n_excitatory = 2.5 must be a whole number",),
    "simulation.simulator.rule=all": ("unknown rule 'all'; known are bernoulli, fixed_in_degree",),
    "simulation.simulator.delay=0.25": ("delay = 0.25 ms is not a multiple of the time step, 0.1 ms",),
    "simulation.simulator.name=brunnel": ("unknown simulator 'brunnel'; did you mean 'brunel'",),
    "simulation.simulator.preset=origin": ("unknown preset of brunel 'origin'; did you mean 'original'",),
    "simulation.simulator=[brunel]": ("simulation.simulator = ['brunel']", "dictionary"),
    "simulation.stimulus={name: sin}": ("simulation.stimulus: unknown stimulus 'sin'; did you mean 'sine'",),
    "simulation.stimulus={name: sine}": ("sine: missing 2 required", "'amplitude' and 'frequency'"),
    "simulation.stimulus={name: sine, amplitud: 3}": ("unknown parameter 'amplitud'; did you mean 'amplitude'",),
    "simulation.record_every_ms=0.15": ("record_every_ms = 0.15 ms is not a multiple of the time step, 0.1 ms",),
    "simulation.snapshot_every_ms=70": ("duration_ms = 400 must be a multiple of snapshot_every_ms = 70",),
    "simulation.duration_ms=410": ("duration_ms = 410 must be a multiple of snapshot_every_ms = 50",),
    "simulation.runs=0": ("simulation.runs = 0", "greater than or equal to 1"),
    "simulation.runs=true": ("simulation.runs = True: must be a number",),
    "simulation.runs=1000000000": ("runs = 1000000000 of duration_ms = 400", "GiB of memory, of", "take fewer"),
    "simulation.runs=2147483648": ("GiB of memory, of", "JNEURO_LIMITS=off lifts this limit"),
    "simulation.runs=18446744073709551616": ("simulation.runs = 18446744073709551616: is more than can be counted",),
    "simulation.simulator.n_excitatory=18446744073709551616": ("is more than can be counted",),
    "simulation.simulator.n_excitatory=[]": ("n_excitatory = [] must be a number, or a list of numbers",),
    "simulation.simulator.tau_m=['20']": ("tau_m = ['20'] must be a number, or a list of numbers",),
    "simulation.stimulus={name: step, amplitude: [1, true]}": ("amplitude = [1, True] must be a number, or a list",),
    "simulation.stimulus={name: step, amplitude: [[1], [1, 2]]}": ("has rows of different lengths",),
    "simulation.stimulus={name: step, amplitude: .nan}": ("amplitude = nan lies outside",),
    "simulation.stimulus={name: step, amplitude: '1e400'}": ("amplitude = '1e400' must be a number",),
    "simulation.duration_ms=1e13": ("of duration_ms = 1e+13", "GiB that this machine has; take fewer or shorter runs"),
    "simulation.dt_ms=0.1": ("brunel brings its own scheme; leave out dt_ms and solver",),
    "simulation.record=[v, w]": ("record: unknown variable 'w'",),
    "simulation.simulator={name: ring_netwerk}": ("unknown simulator 'ring_netwerk'; did you mean 'ring_network'",),
    "simulation=null": ("give either 'simulation' or 'recording'",),
    "windows.length_ms=abc": ("windows.length_ms = 'abc'", "must be a number"),
    "windows.length_ms='20'": ("windows.length_ms = '20': must be a number",),
    "windows.horizons_ms=[1, true]": ("windows.horizons_ms = [1, True]: True must be a number",),
    "windows.length_ms=1000": ("length_ms = 1000", "do not fit into a run of 400 ms less discard_ms = 50"),
    "windows.length_ms=20.5": ("length_ms = 20.5 must be a multiple of the recording's 1 ms",),
    "windows.stride_ms=1e-3": ("stride_ms = 0.001 must be a multiple of the recording's 1 ms, at least 1",),
    "windows.length_ms=1e300": (
        "windows.length_ms = 1e+300: is beyond what single precision holds, 1.2e-38 to 3.4e+38",
    ),
    "windows={length_ms: 1e12}": ("length_ms = 1e+12 is 1,000,000,000,000 frames, of 10,000,000 at most",),
    "models.m.windows={horizons_ms: {first_ms: 1, last_ms: 1e12}}": ("horizons_ms has 999,999,999,999 frames, of 10",),
    "windows={fractions: {train: 1e-30, validation: 0.5, test: 0.5}}": ("leave nothing for train", "are enough"),
    "windows.horizons_ms=[2,1]": ("horizons_ms = [2, 1] frames must ascend",),
    "windows.horizons_ms=both": ("windows.horizons_ms = 'both'", "'next_window' or 'same_window'"),
    "windows.fractions={train: 0.5, validation: 0.49, test: 0.01}": ("of 10 leave nothing for test; use more runs",),
    "windows.fractions={train: 0.5, validation: 0.3, test: 0.3}": ("= 1.1, but shares must sum to 1",),
    "windows.targets=[w]": ("windows: unknown variable 'w'; known are v, spikes, trace, rate, population_rate",),
    "windows.split=trial": ("windows.split = 'trial'", "'run', 'time' or 'report'"),
    "models={}": ("models", "at least 1 item"),
    "models.m.model.name=compac": (
        "models.m.model: unknown model 'compac'; did you mean 'compact', or module:name of your own",
    ),
    "models.m.model.lags=40": ("models.m.model: lags must be at most length = 20, got 40",),
    "models.m.model.features=7": ("models.m.model: features = 7, but the data give 100; leave it out",),
    "models={m.1: {model: {name: lstm}}, m: {seeds: 2, model: {name: lstm}}}": (
        "'m.1' and 'm (seed 1)' would both be trained in models/m.1; rename one",
    ),
    "models={m: {model: {name: lstm}, seeds: 2}, M.1: {model: {name: lstm}}}": (
        "'m (seed 1)' and 'M.1' would both be trained in models/M.1; rename one",
    ),
    "models={lookup: {model: {name: compact}}}": ("'lookup' is the name of a baseline; choose another",),
    "models={Mean: {model: {name: compact}}}": ("'Mean' is the name of a baseline; choose another",),
    "models={'': {model: {name: compact}}}": ("models: '' must be made of letters",),
    "models={..: {model: {name: compact}}}": ("models: '..' must be made of letters",),
    "models={con.1: {model: {name: compact}}}": ("models: 'con.1' is reserved on Windows",),
    "models={a.: {model: {name: compact}}}": ("models: 'a.' must not end with a dot",),
    "models.m.model={name: lstm, hidden: 1000000000}": ("models.m.model.hidden = 1000000000 is more than 16,777,216",),
    "models.m.model={name: lstm, hidden: 100000}": ("parameters in", "GiB that this machine has; lower the sizes of"),
    "models.m.model={name: 'flax.nnx:Linear', in_features: '3', out_features: 4}": ("in_features = '3' must be a num",),
    "models.m.model={name: 'flax.nnx:Linear', in_features: 3, out_features: true}": ("out_features = True must be a",),
    "models.a b.model.name=compact": ("models: 'a b' must be made of letters",),
    "models.m.seeds=true": ("models.m.seeds = True: must be a number",),
    "models.m.train.epochs=0": ("models.m.train.epochs = 0", "greater than or equal to 1"),
    "train.epochs=18446744073709551616": ("train.epochs = 18446744073709551616: is more than can be counted",),
    "train.epochs=1000000000": ("epochs = 1000000000 of 14 steps are more steps than can be counted",),
    "train={warmup_epochs: 50, epochs: 20}": (
        "warmup_epochs = 50 is more than epochs = 20, so the learning rate would",
    ),
    "train.plateau.min_lr=1": ("plateau.min_lr = 1 is more than the learning rate, 0.001; lower it",),
    "train.optimizer={name: adamw, weight_decay: 1e300}": ("weight_decay = 1e+300: is beyond what single precision",),
    "train.epochs=2.5": ("train.epochs = 2.5", "valid integer"),
    "train.epochs=": ("train.epochs = None", "valid integer"),
    "train.batch_size=463": ("train.batch_size = 463 is more than the 462 training windows; lower it",),
    "train.schedule=cosine": ("train: schedule 'cosine' and plateau", "set plateau to null"),
    "train.optimizer.name=adm": (
        "train.optimizer: unknown optimizer 'adm'; did you mean 'adam', or module:name of your own",
    ),
    "train.optimizer.name=optax:adm": ("train.optimizer: 'optax:adm': ", "has no 'adm'"),
    "train.optimizer={name: 'optax:adam', learning_rte: 1}": (
        "unknown argument 'learning_rte'; did you mean",
        "learning_rate",
    ),
    "train={optimizer: {name: 'optax:sgd', learning_rate: 1e-3}, warmup_epochs: 3}": (
        "train: optimizer 'optax:sgd' sets its own learning rate, so warmup_epochs has no effect; leave it out",
    ),
    "train.loss=mea": ("train.loss: unknown loss 'mea'; did you mean", "or module:name of your own"),
    "train.loss=json:dumps": (
        "train.loss: json:dumps: too many positional arguments",
        "it is called with prediction and batch",
    ),
    "train.metrics=[mae, mae]": ("train: metrics: 'mae' stands there twice",),
    "train.schedule=cosin": ("train.schedule: unknown schedule 'cosin'; did you mean 'cosine'",),
    "train.callbacks=[json:JSONEncoder]": (
        "train.callbacks.0: 'json:JSONEncoder' is no callback: it has none of on_start",
    ),
    "train.optimizer.learning_rate=.inf": ("train.optimizer.learning_rate = inf", "finite number"),
    "evaluate.leaky_twins=[x]": ("evaluate.leaky_twins: unknown model 'x'; known are m",),
    "evaluate.baselines=[arr]": ("evaluate.baselines.0: unknown baseline 'arr'; did you mean 'ar'",),
    "evaluate.baselines={ar_order: 21}": (
        "evaluate.baselines: must be a list of mean, persistence, ar, var, lookup",
        "as in [persistence, {name: ar, order: 20}]",
    ),
    "evaluate.baselines=[{name: ar, order: 21}]": (
        "evaluate.baselines: ar: order = 21 is more than the 20 frames of a window",
    ),
    "evaluate.baselines=[{name: ar, oder: 3}]": ("evaluate.baselines.0: unknown key 'oder'; did you mean 'order'",),
    "evaluate.baselines=[ar, ar]": ("baseline 'ar' stands there twice",),
    "evaluate.ceiling={futures: 10000000000000}": (
        "futures = 10000000000000 of",
        "of 1e+14 at most; lower",
    ),
    "evaluate.baselines=[{name: lookup, bins: 1000000000}]": ("bins = 1000000000", "less than or equal to 1000000"),
    "evaluate.trace_ms=1e9": ("evaluate.trace_ms = 1e+09 is more than the 400 ms of a run",),
    "evaluate.ceiling.futures=1": ("evaluate.ceiling.futures = 1", "greater than or equal to 2"),
    "seed=-1": ("seed = -1", "greater than or equal to 0"),
    "seed={{x}}": ("'seed={{x}}' is not valid YAML", "quotes"),
    "name=a/b": ("name = 'a/b'", "pattern"),
    "seed": ("'seed' must have the form key=value, such as train.epochs=3",),
    "=3": ("'=3' must have the form key=value",),
    "seed=[1": ("'seed=[1' is not valid YAML",),
    "train.epochs.x=3": ("'train.epochs.x=3': train.epochs is a value and has no keys",),
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_bad_override_is_explained(tiny, override):
    with pytest.raises(ConfigError) as caught:
        load_experiment(tiny, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("command line: ")
    for part in OVERRIDES[override]:
        assert part in message


FITS = {
    "fit.trainable=[g_na, {a: 1}]": "fit.trainable = ['g_na', {'a': 1}]: {'a': 1} must be a parameter's name",
    "fit.trainable=3": "fit.trainable = 3 must be a list of parameters, or a mapping of them to their bounds",
    "fit.dt_ms=96459": "fit.dt_ms = 96459 is more than the 0.05 ms between samples",
    "fit.dt_ms=1e-30": "of 1e+14 at most; take fewer repeats",
    "fit.noise_mv=5e-324": "fit.noise_mv = 5e-324: is beyond what single precision holds",
    "fit.method.spread=9223372036854775808": "fit.method.spread = 9223372036854775808",
    "fit.method={name: cma, evaluations: 1000000000000000}": "steps, of 1e+14 at most",
    "fit.uncertainty.posterior={draws: 1000000000}": "draws = 1000000000, calibration = 0 needs",
    "fit.uncertainty={profile: [g_na], points: 100000000000}": "fit.uncertainty: points = 100000000000",
    "repeats=100000000000": "fit: repeats = 100000000000, ",
    "cut_ms=[0, 1e9]": "cut_ms: the recording ends at 100 ms",
    "sample_ms=1e9": "sample_ms = 1e+09 is more than the 100 ms of a trial",
    "simulation.runs=1000000000": "of duration_ms = 100, with 1 neurons every 0.05 ms: v, current alone needs",
    "fit.objective=[{name: voltag}]": "fit.objective.0: unknown objective 'voltag'; did you mean 'voltage'",
}
SWEEPS = {
    "sweep={axes: {g: {low: 2, high: 5, points: 100000000000}}, max_points: 1000000000000}": "100,000,000,000 points",
    "simulation.duration_ms=1e9": "is 10,000,001,000 steps, more than can be counted",
    "simulation.simulator.n_excitatory=1000000000": "simulation: a recording of 300 ms every 0.1 ms, with 1000000020",
    "sweep.axes={g: [a]}": "sweep.axes.g.values = ['a']: 'a' must be a number",
}


@pytest.mark.parametrize("override", [*FITS, *SWEEPS])
def test_a_bad_override_of_fits_and_sweeps_is_explained(override):
    load, name = (load_fit, "fit_hodgkin_huxley") if override in FITS else (load_sweep, "sweep_brunel")
    with pytest.raises(ConfigError) as caught:
        load(ROOT / "configs" / "quick" / f"{name}.yaml", [override])
    assert (FITS | SWEEPS)[override] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(ROOT))


def test_limits_can_be_lifted_and_an_estimate_adds_up(tiny, monkeypatch):
    found = load_plan(tiny).estimate
    assert (found.steps, found.memory) == (10 * 4000 + 14 + 32 * (2 * 8) * 10, 10 * 100 * 400 * 4)
    assert found.disk == 10 * 100 * 400 * 4 + 4 * 100 * 132
    monkeypatch.setattr("jneuro.core.resources.free_disk", lambda path: 1000)
    with pytest.raises(ValueError, match=r"x: the results need up to 0.0 GiB, .* most of it for simulation: runs = 10"):
        found.require_disk(Path("x"))
    monkeypatch.setattr("jneuro.core.resources.total_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="JNEURO_LIMITS=off lifts this limit"):
        load_plan(tiny)
    monkeypatch.setenv("JNEURO_LIMITS", "off")
    load_plan(tiny).estimate.require_disk(Path("x"))


def test_a_leaky_twin_and_a_model_are_not_trained_in_one_folder(tiny):
    models = "models={m.leaky: {model: {name: compact, lags: 2}}, m: {model: {name: compact, lags: 2}}}"
    with pytest.raises(ConfigError, match=r"'m.leaky' and 'm \(leaky split\)' would both be trained in models/m.leaky"):
        load_experiment(tiny, [models, "evaluate.leaky_twins=[m]"])


# The same in the file: old text, new text, and what the message must say beside the file's name.
EDITS = {
    "unknown key": ("train: {", "train: {epoch: 3, ", "train: unknown key 'epoch'; did you mean 'epochs'"),
    "negative": ("forecasting_report}", "forecasting_report, tau_m: -1}", "tau_m = -1.0 ms lies outside (0, inf) ms"),
    "too long": ("length_ms: 20", "length_ms: 400", "length_ms = 400"),
    "unknown model": (
        "name: compact",
        "name: compost",
        "models.m.model: unknown model 'compost'; did you mean 'compact'",
    ),
    "no name": ("name: compact, ", "", "models.m.model"),
    "missing": ("name: tiny\n", "", "name: is missing"),
    "twice": ("train: {", "name: again\ntrain: {", "not valid YAML: key 'name' stands twice, again at line 10"),
    "twice inside": ("runs: 10", "runs: 10\n  runs: 11", "key 'runs' stands twice, again at line 5"),
    "not YAML": ("models:", "models: [", "not valid YAML"),
    "tab": ("  runs", "\truns", "not valid YAML"),
    "braces": ("name: tiny", "name: {{name}}", "the key at line 1 is not a word"),
    "merged": ("train: {", "train: {<<: 3, ", "unknown key '<<'"),
    "both": ("models:", "recording: r.zarr\nmodels:", "give either 'simulation' or 'recording'"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_bad_file_is_explained(tiny, case):
    old, new, expected = EDITS[case]
    assert old in TINY
    tiny.write_text(TINY.replace(old, new))
    # An override that is right is not to blame.
    with pytest.raises(ConfigError) as caught:
        load_experiment(tiny, ["seed=1"])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tiny}: ")
    assert expected in message


def test_several_errors_are_several_lines(tiny):
    with pytest.raises(ConfigError) as caught:
        load_experiment(tiny, ["seed=-1", "train.epochs=0"])
    assert [line.split(" = ")[0] for line in str(caught.value).splitlines()] == [
        "command line: seed",
        "command line: train.epochs",
    ]


BOMB = "seed: &a0 [0]\n" + "".join(f"x{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]\n" for i in range(1, 9))
"""Nine times nine times nine … values in nine lines."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cannot be read (No such file or directory); see `jneuro list configs`"),
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        # What PyYAML itself trips over.
        ("seed: 0x_", "x.yaml: not valid YAML: ValueError: invalid literal for int() with base 16"),
        ("seed: !!int foo", "x.yaml: not valid YAML: ValueError: invalid literal"),
        ("seed: !!bool maybe", "x.yaml: not valid YAML: KeyError: 'maybe'"),
        ("seed: !!timestamp 1", "x.yaml: not valid YAML: AttributeError"),
        ("seed: !!map [a]", "x.yaml: not valid YAML: expected a mapping node, but found sequence"),
        ("seed: 0x" + 5000 * "f", "x.yaml: not valid YAML: a number of 20,000 bits"),
        ("seed: &x [*x]", "x.yaml: not valid YAML: nested more than 64 deep"),
        (BOMB, "x.yaml: not valid YAML: more than 1,000,000 values, with those that aliases repeat"),
        ("seed: !!set {a}", "x.yaml: not valid YAML: {'a'} is neither text, number, list nor mapping"),
        ("models: {1: lstm}", "x.yaml: not valid YAML: the key 1 at line 1 is not a word; put it in quotes"),
        ("train: {null: 3}", "the key None at line 1 is not a word; put it in quotes"),
        ('"a\\x1b\\nb": 3', r"unknown key 'a\x1b\nb'"),
        ("seed: -0.0", "seed = -0.0: must be a whole number"),
        ("seed: " + 2000 * "[", "x.yaml: not valid YAML: RecursionError"),
        ("seed: " + 5000 * "9", "x.yaml: not valid YAML: ValueError: Exceeds the limit"),
        ("seed: 4294967296", "seed = 4294967296: input should be less than 4294967296"),
        ("seed: '" + 5000 * "x" + "'", "xxx...xxx"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_no_configuration(tmp_path, text, expected):
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))) as caught:
        load_experiment(path)
    assert expected in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 300 + len(str(path))


def test_binary_and_folders_are_no_configuration(tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x.yaml: not valid YAML"):
        load_experiment(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path)
    monkeypatch.setattr("jneuro.core.config._MOST_BYTES", 2)
    with pytest.raises(ConfigError, match=r"x.yaml: is larger than 0 MiB"):
        load_experiment(tmp_path / "x.yaml")


RECORDED = """\
name: recorded
recording: recording.zarr
windows: {length_ms: 20, discard_ms: 50, stride_ms: 5}
models: {m: {model: {name: compact, lags: 4}}}
"""


@pytest.fixture
def recorded(tmp_path, store):
    shutil.copytree(store, tmp_path / "recording.zarr")
    path = tmp_path / "recorded.yaml"
    path.write_text(RECORDED)
    return path


def test_a_recording_gives_the_sizes(recorded, monkeypatch):
    config = load_experiment(recorded, ["evaluate.baselines=[{name: ar, order: 3}]"])
    assert (config.models["m"].model.features, config.models["m"].model.length) == (7, 20)
    # The path is the file's neighbour; the resolved configuration holds wherever it is read.
    monkeypatch.chdir("/")
    assert config.recording.path == recorded.parent / "recording.zarr"
    resolved = recorded.parent / "deeper" / "config.yaml"
    resolved.parent.mkdir()
    resolved.write_text(to_yaml(config))
    assert load_experiment(resolved) == config


def test_a_recording_given_on_the_command_line_is_relative_to_the_working_folder(recorded, monkeypatch):
    (recorded.parent / "recording.zarr").rename(recorded.parent / "other.zarr")
    monkeypatch.chdir(recorded.parent)
    config = load_experiment(recorded, ["recording=other.zarr", "evaluate.baselines=[{name: ar, order: 3}]"])
    assert config.recording.path == recorded.parent / "other.zarr"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (shutil.rmtree, "or make it anew with `jneuro simulate CONFIG`"),
        (
            lambda p: next(f for f in (p / "v" / "c").rglob("*") if f.is_file()).unlink(),
            "damaged, v/c/0/0/0 is missing",
        ),
        (lambda p: (p / "zarr.json").write_text("{"), "not a Zarr store"),
    ],
)
def test_a_recording_that_cannot_be_used(recorded, damage, expected):
    damage(recorded.parent / "recording.zarr")
    with pytest.raises(ConfigError) as caught:
        load_experiment(recorded)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(recorded), str(recorded.parent / "recording.zarr"), expected):
        assert part in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("windows.length_ms=260", "do not fit into a run of 300 ms"),
        ("windows.targets=[w]", "unknown variable 'w'; known are "),
        ("models.m.model.features=8", "features = 8, but the data give 7"),
    ],
)
def test_windows_and_models_must_fit_the_recording(recorded, override, expected):
    with pytest.raises(ConfigError, match="command line: ") as caught:
        load_experiment(recorded, ["evaluate.baselines=[{name: ar, order: 3}]", override])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E-3", 1e-3),
        ("-1e5", -1e5),
        ("+2e+2", 200.0),
        (".5", 0.5),
        ("1_000.5", 1000.5),
        ("5.", 5.0),
        ("2", 2.0),
    ],
)
def test_numbers_as_people_write_them(tiny, text, value):
    for config in (
        load_experiment(tiny, [f"simulation.simulator.v_rest={text}"]),
        load_experiment(_rewritten(tiny, "forecasting_report}", f"forecasting_report, v_rest: {text}}}")),
    ):
        found = config.simulation.simulator.arguments["v_rest"]
        assert found == value
        assert type(found) in (float, int)


def _rewritten(path, old, new):
    path.write_text(TINY.replace(old, new))
    return path


@pytest.mark.parametrize("name", ["1.0.0", "2025-01-01", "1e-3e", "e5", "-e-3", "1-2", "v1.5"])
def test_words_that_look_like_numbers_stay_words(tiny, name):
    assert load_experiment(tiny, [f"name={name}"]).name == name


def test_overrides_replace_one_key_each(tiny):
    plain = load_experiment(tiny)
    config = load_experiment(
        tiny,
        [
            "seed=3",
            "windows.horizons_ms=[1, 2.0, 1e1]",
            "models.other.model={name: compact, lags: 2}",
            "models.m.train={epochs: 7}",
            "evaluate.ceiling=null",
            "simulation.stimulus={name: constant, amplitude: 2}",
        ],
    )
    assert (plain.seed, config.seed, config.simulation.runs) == (0, 3, 10)
    assert config.windows.horizons_ms == (1.0, 2.0, 10.0)
    assert config.windows.length_ms == plain.windows.length_ms
    assert {n: (e.model.lags, e.model.horizons) for n, e in config.models.items()} == {"m": (4, 3), "other": (2, 3)}
    assert (config.train_config_of("m").epochs, config.train_config_of("other").epochs) == (7, 1)
    assert config.evaluate.ceiling is None
    assert config.simulation.stimulus.arguments == {"amplitude": 2}
    # The later one wins.
    assert load_experiment(tiny, ["seed=3", "seed=4"]).seed == 4


def test_the_resolved_configuration_is_complete_and_reloads_to_the_same(tiny, tmp_path):
    endless = "simulation.stimulus={name: step, amplitude: 1, end: .inf}"
    config = load_experiment(tiny, ["windows.horizons_ms=[1,5]", "train.optimizer.learning_rate=1e-5", endless])
    text = to_yaml(config)
    resolved = yaml.safe_load(text)
    assert resolved["models"]["m"]["model"]["features"] == 100
    assert resolved["models"]["m"]["model"]["horizons"] == 2
    assert resolved["windows"]["measurement_noise"] == 0
    (tmp_path / "again.yaml").write_text(text)
    again = load_experiment(tmp_path / "again.yaml")
    assert again == config
    assert to_yaml(again) == text
    assert content_hash(again) == content_hash(config)


def test_a_configuration_cannot_be_changed(tiny):
    with pytest.raises(ValueError, match="frozen"):
        load_experiment(tiny).seed = 3


def test_hash_does_not_depend_on_the_order_of_keys(tiny):
    before = content_hash(load_experiment(tiny))
    data = yaml.load(TINY.replace("1e-3", "0.001"), yaml.SafeLoader)

    def turned(value):
        return {k: turned(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    tiny.write_text(yaml.safe_dump(turned(data), sort_keys=False))
    assert tiny.read_text().startswith("evaluate")
    assert content_hash(load_experiment(tiny)) == before
    assert re.fullmatch("[0-9a-f]{8}", before)


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path, value


def test_hash_changes_with_any_value(tiny):
    config = load_experiment(tiny).model_dump(mode="json")
    seen = {content_hash(config)}
    paths = [path for path, _ in _leaves(config)]
    assert len(paths) > 50
    for path in paths:
        changed = load_experiment(tiny).model_dump(mode="json")
        here = changed
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = "something else"
        seen.add(content_hash(changed))
    assert len(seen) == len(paths) + 1
    assert content_hash(config, 1) != content_hash(config, 2) != content_hash(2, config)


ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


KINDS = {"fit": load_fit, "sweep": load_sweep}
"""How a file is loaded, by the key that only such files have."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_configuration_loads_and_says_what_it_is(path):
    text = path.read_text()
    next((load for key, load in KINDS.items() if f"\n{key}:" in text), load_plan)(path)
    header = [line for line in path.read_text().split("\n\n")[0].splitlines() if line]
    assert all(line.startswith("#") for line in header)
    assert len(header[0]) > 10
    for word in ("Source", "Expected", "Device", "Time", "Command"):
        lines = [line for line in header if line.startswith(f"# {word}:")]
        assert len(lines) == 1
        assert lines[0].partition(":")[2].strip()
    command = next(line for line in header if line.startswith("# Command:"))
    assert command.split()[-1] == str(path.relative_to(ROOT))


def test_configurations_are_found_by_name(monkeypatch, tmp_path):
    assert CONFIGS
    monkeypatch.chdir(ROOT)
    assert [ROOT / p for p in config_files()] == CONFIGS
    relative = CONFIGS[0].relative_to(ROOT / "configs")
    for name in (str(relative), str(relative.with_suffix(""))):
        assert find_config(name) == Path("configs") / relative
    assert find_config(str(CONFIGS[0])) == CONFIGS[0]
    assert find_config("nothing") == Path("nothing")


ODE = "simulation.simulator={name: hodgkin_huxley}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["simulation.solver=rk5"], ["unknown solver 'rk5'; did you mean 'rk4'"]),
        (["simulation.solver=rk4", "simulation.dt_ms=1.0"], ["dt = 1 ms is too large for RK4", "take dt below"]),
        (["simulation.dt_ms=0.03"], ["record_every_ms = 1.0 ms is not a multiple of the time step, 0.03 ms"]),
        (["simulation.simulator={name: ca1_pyramidal}", "simulation.solver=staggered_crank_nicolson"], ["first order"]),
        (
            ["simulation.simulator={name: hodgkin_huxley, g_k: [30, 36]}", "simulation.stimulus.amplitude=[1, 2, 3]"],
            ["do not agree in the number of cells"],
        ),
        (["evaluate.ceiling={}"], ["hodgkin_huxley has no noise", "set it to null"]),
        (["simulation.record=[current]"], ["windows: unknown variable 'v'"]),
    ],
    ids=lambda x: x[-1].split("=")[0] if isinstance(x, list) else None,
)
def test_what_an_ode_simulator_cannot_do(tiny, overrides, words):
    constant = "simulation.stimulus={name: constant, amplitude: 7.0}"
    with pytest.raises(ConfigError) as caught:
        load_experiment(tiny, [ODE, constant, "evaluate.ceiling=null", *overrides])
    for word in words:
        assert word in str(caught.value)


def test_an_ode_simulator_has_as_many_cells_as_its_stimulus(tiny):
    stimulus = "simulation.stimulus={name: constant, amplitude: [1, 2, 3]}"
    config = load_experiment(tiny, [ODE, stimulus, "evaluate.ceiling=null", "simulation.solver=tsit5"])
    assert config.simulation.populations == {"cells": 3}
    assert config.models["m"].model.features == 3
    assert load_experiment(tiny, [ODE, "evaluate.ceiling=null"]).simulation.neurons == 1
