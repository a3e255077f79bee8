"""A model on disk that needs nothing else to be rebuilt.

<folder>/model.json     the configuration, with the model's name
<folder>/checkpoints    its weights, as a training writes them: `load_best` reads them too
<folder>/scaling.json   where it was given, the mean and scale of each variable that the model reads and predicts
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import ValidationError

from jneuro.core.config import Config
from jneuro.core.files import write_json, written
from jneuro.core.guard import Unreadable, read_json
from jneuro.core.names import one_line
from jneuro.datasets.windows import Scaling
from jneuro.interop.tensors import WeightsError, check_sizes, check_tensors, reading
from jneuro.models.base import Model, ModelConfig, build_model
from jneuro.models.kinds import MODELS
from jneuro.training.checkpoints import (
    CheckpointError,
    Checkpoints,
    CheckpointStore,
    latest,
    named_arrays,
    split_model,
    with_best,
)

__all__ = ["CONFIG", "load_scaling", "load_weights", "model_config", "new_model", "save_weights", "written_whole"]

CONFIG = "model.json"
"""Name of the configuration within a folder."""

_SCALING = "scaling.json"


@contextmanager
def written_whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Write a file or a weights folder, whole or not at all.

    Args:
        path: where it will be.
        overwrite: whether to replace what is there.

    Yields:
        Where to write it; it is moved to `path` when the body ends without an error.

    Raises:
        WeightsError: if something is there that is not to be replaced.
    """
    if path.is_dir() and not (path / CONFIG).exists():
        raise WeightsError(f"{path}: is a folder of something else; choose another target")
    if path.exists() and not overwrite:
        raise WeightsError(f"{path}: exists already; choose another target, or replace it with --overwrite")
    with written(path) as fresh:
        yield fresh


def model_config(values: object, source: str) -> ModelConfig:
    """Check the configuration of any model.

    Args:
        values: keys and values, `name` among them.
        source: where they come from, in the message.

    Returns:
        The configuration.

    Raises:
        WeightsError: naming key, value and remedy.
    """
    try:
        return MODELS.block(values)
    except ValidationError as error:
        said = (f"{'.'.join(map(str, e['loc'])) or 'the model'}: {e['msg']}" for e in error.errors())
        raise WeightsError(f"{source}: {'; '.join(said)}") from error
    except ValueError as error:
        raise WeightsError(f"{source}: the model: {error}") from error


def new_model(config: ModelConfig) -> Model:
    """Build a model whose weights are about to be replaced.

    Args:
        config: any model's.

    Returns:
        The model.
    """
    return build_model(config, rngs=nnx.Rngs(0))


def save_weights(
    model: nnx.Module, path: str | Path, *, scaling: Scaling | None = None, overwrite: bool = False
) -> None:
    """Write a model into a weights folder, whole or not at all.

    Args:
        model: a model of `jneuro.models`.
        path: the folder.
        scaling: of the data that it was trained on, such as `windows.scaling`, to be read by `load_scaling`.
        overwrite: replace a weights folder that is there.

    Raises:
        WeightsError: if something is there that is not to be replaced, or the model has no configuration.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, Config):
        raise WeightsError(
            f"{type(model).__name__} has no configuration to be rebuilt from; give it one, a ModelConfig, as its "
            "attribute `config`, or train it with a checkpoint, and read that by jneuro.training.load_best"
        )
    values = config.model_dump(mode="json")
    with written_whole(Path(path), overwrite=overwrite) as folder:
        folder.mkdir()
        write_json(folder / CONFIG, values)
        if scaling is not None:
            rows = {"mean": scaling.mean, "scale": scaling.scale}
            write_json(folder / _SCALING, {name: np.asarray(row).tolist() for name, row in rows.items()})
        with CheckpointStore(Checkpoints(folder / "checkpoints"), {"model": values}) as store:
            store.save(0, named_arrays({"best": split_model(model)[1]}), [])


def load_scaling(path: str | Path) -> Scaling:
    """Read the scaling of a weights folder, with which data in the recording's unit become what the model reads.

    Args:
        path: the folder.

    Returns:
        The scaling, as it was saved.

    Raises:
        WeightsError: if it has none.
    """
    try:
        rows = read_json(Path(path) / _SCALING)
        return Scaling(**{name: jnp.asarray(rows[name], jnp.float32) for name in ("mean", "scale")})
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"{path}: {_SCALING} cannot be read ({one_line(error, most=100)}); save it by save_weights(model, path,"
            " scaling=windows.scaling)"
        ) from error


def load_weights(path: str | Path) -> Model:
    """Rebuild a model from a weights folder.

    Args:
        path: the folder.

    Returns:
        The model, bit by bit as it was saved.

    Raises:
        WeightsError: if it is no weights folder, or its arrays do not fit its configuration.
        CheckpointError: if its arrays are damaged.
    """
    path = Path(path)
    try:
        values = read_json(path / CONFIG)
    except Unreadable as error:
        raise WeightsError(f"{path}: not a weights folder, {CONFIG} {error}") from error
    # A file that came from elsewhere must not choose which code runs.
    if isinstance(values, dict) and ":" in str(values.get("name")):
        raise WeightsError(
            f"{path / CONFIG}: name = {one_line(values['name'], most=60)!r} is code, which no weights folder may"
            " name; build the model and read its weights by jneuro.training.load_best(model, '.../checkpoints')"
        )
    try:
        saved, _ = latest(path / "checkpoints")
    except CheckpointError as error:
        said = one_line(str(error).partition("can be read (")[2].partition(":")[0], most=100)
        raise CheckpointError(f"{path}: its checkpoint cannot be read ({said}); it is damaged, get it anew") from error
    if saved is None:
        raise WeightsError(f"{path}: not a weights folder, it has no checkpoint")
    with reading(path / CONFIG, "a model's configuration"):
        config = model_config(values, str(path / CONFIG))
        check_sizes(config.model_dump(), saved.arrays, str(path / CONFIG))
        # Shapes alone: of a model that does not fit the arrays, nothing is allocated.
        shape: Any = nnx.eval_shape(lambda: new_model(config))
        leaves = jax.tree_util.tree_leaves_with_path({"best": split_model(shape)[1]})
    shapes = {jax.tree_util.keystr(at, simple=True, separator="."): leaf.shape for at, leaf in leaves}
    check_tensors(shapes, saved.arrays, f"{path / CONFIG}")
    model: Any = new_model(config)
    return with_best(model, saved.arrays)
