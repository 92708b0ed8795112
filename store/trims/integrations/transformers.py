"""transformers models over shared weights: `from_trims` is `from_pretrained` for a model of the store.

Configuration and tokenizer files come out of the model's side files, which an import of a directory keeps; the weights
are handed over as a state dict, so that transformers does to them what it does to those it has read: renames, ties,
casts. What it need not change stays shared.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _get_model_class

from trims.client.handle import Model, open
from trims.errors import UsageError
from trims.integrations.torch import tensors

__all__ = ["from_trims"]

T = TypeVar("T")

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_KEPT = ("dtype", "torch_dtype", "quantization_config")
"""Options of the weights that a configuration would swallow."""
_HOW = {"attn_implementation", "experts_implementation"}


def from_trims(ref: str | Model, cls: type[T], *args: Any, **kwargs: Any) -> T:
    """What `cls.from_pretrained(directory, *args, **kwargs)` gives for the directory that was imported.

    ref: an open Model, or its ref. cls: a model class, or one of the Auto classes; a tokenizer, configuration or
    processor class gets the side files alone. On the CPU, and in the dtype of the file, weights are shared: clean pages
    of copy-on-write memory; in another dtype, or on another device, they are copies (see `Model.memory`).
    Raises UsageError when the model has no configuration, and what `trims.open` and transformers raise.
    """
    model = open(ref) if isinstance(ref, str) else ref
    try:
        with _directory(model) as path:
            if not _has_weights(cls):
                made: T = cls.from_pretrained(path, *args, **kwargs)  # type: ignore[attr-defined]
            else:
                made = _weighted(model, cls, path, args, kwargs)
            return made
    finally:
        if isinstance(ref, str):
            model.close()


def _weighted(model: Model, cls: Any, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "state_dict" in kwargs:
        raise UsageError(f"{model.ref} brings its own weights", "state_dict was given, too", "leave one of them out")
    if _CONFIG not in model.files:
        raise UsageError(
            f"{model.ref} cannot be built by transformers",
            f"it has no {_CONFIG}",
            "import the model's directory, not the file with its weights alone",
        )
    generation: dict[str, Any] = {}
    if "config" not in kwargs:
        kept = {name: kwargs.pop(name) for name in _KEPT if name in kwargs}
        config_class = AutoConfig if _is_auto(cls) else cls.config_class
        config, unused = config_class.from_pretrained(path, return_unused_kwargs=True, **kwargs)
        if not _is_auto(cls):  # there, and only there, what the configuration took goes to the other one, too
            generation = {name: kwargs[name] for name in kwargs.keys() - unused.keys() - _HOW}
        kwargs = {**unused, "config": config, **kept}
    if _GENERATION in model.files and "generation_config" not in kwargs:
        kwargs["generation_config"] = GenerationConfig.from_pretrained(path, **generation)
    cls, kwargs["config"] = _resolved(cls, kwargs["config"])
    state = tensors(model)
    made = cls.from_pretrained(None, *args, state_dict=state, **kwargs)
    network = made[0] if isinstance(made, tuple) else made  # with output_loading_info
    network.name_or_path = network.config.name_or_path = model.ref
    _count_copies(model, network, {tensor.data_ptr() for tensor in state.values()})
    return made


def _count_copies(model: Model, network: Any, shared: set[int]) -> None:
    """Have the model know what the network has on the CPU that is not at one of the addresses `shared`."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() not in shared:
            model.count_copy(tensor, tensor.nbytes)


def _resolved(cls: Any, config: Any) -> tuple[Any, Any]:
    """The class that an Auto class stands for, and its configuration, as `from_pretrained` finds them."""
    if not _is_auto(cls):
        return cls, config
    if type(config) not in cls._model_mapping:
        why = f"it makes no model of a {type(config).__name__}"
        raise UsageError(f"{cls.__name__} does not fit", why, "use the class that fits; code of a model is never run")
    found = _get_model_class(config, cls._model_mapping)
    part = getattr(config, "sub_configs", {}).get("text_config")
    if part is not None and getattr(found, "config_class", None) is part:
        whole, config = config, config.get_text_config()
        if getattr(whole, "quantization_config", None) is not None:
            config.quantization_config = whole.quantization_config
    return found, config


def _has_weights(cls: type) -> bool:
    return _is_auto(cls) or issubclass(cls, PreTrainedModel)


def _is_auto(cls: type) -> bool:
    return hasattr(cls, "_model_mapping")


@contextmanager
def _directory(model: Model) -> Iterator[str]:
    """A directory with the model's side files, for as long as something reads them."""
    with tempfile.TemporaryDirectory(prefix="trims-") as path:
        for name, data in model.files.items():
            with os.fdopen(
                os.open(os.path.join(path, os.path.basename(name)), os.O_WRONLY | os.O_CREAT, 0o600), "wb"
            ) as file:
                file.write(data)
        yield path
