"""A program that loads models by transformers, redirected, and compares with what was saved.

`python transformers_loads.py DIRECTORY`: makes bert/ (with a tokenizer), gpt/ (tied weights, sharded, in bfloat16) and
bin/ (a torch checkpoint) there and imports them; prints how much of each loaded model's parameters is shared.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

from helpers.torch_loads import is_shared, traits

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

CLASSES = {"bert": transformers.AutoModelForSequenceClassification, "gpt": transformers.AutoModelForCausalLM,
           "bin": transformers.BertModel}  # fmt: skip


def built() -> dict[str, Any]:
    """The models, the same each time."""
    torch.manual_seed(0)
    small = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = transformers.BertConfig(**small, intermediate_size=64)
    gpt = transformers.GPT2Config(vocab_size=2000, n_positions=32, n_embd=128, n_layer=1, n_head=2)
    made = {
        "bert": transformers.BertForSequenceClassification(bert),
        "gpt": transformers.GPT2LMHeadModel(gpt).to(torch.bfloat16),
        "bin": transformers.BertModel(bert),
    }
    made["gpt"].generation_config.max_new_tokens = 3
    with torch.no_grad():
        for parameter in (parameter for model in made.values() for parameter in model.parameters()):
            parameter.add_(torch.randn_like(parameter) / 10)  # new ones are equal ones often, and trained ones never
    return {name: model.eval() for name, model in made.items()}


def make(directory: pathlib.Path, made: dict[str, Any]) -> None:
    from tokenizers import Tokenizer, models

    from trims.disk.importers import open_source
    from trims.disk.ingest import import_model
    from trims.disk.store import create_store

    made["bert"].save_pretrained(directory / "bert")
    words = Tokenizer(models.WordLevel({"hello": 0, "[UNK]": 1}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(directory / "bert")
    made["gpt"].save_pretrained(directory / "gpt", max_shard_size="300KB")
    made["bin"].config.save_pretrained(directory / "bin")
    torch.save(made["bin"].state_dict(), directory / "bin/pytorch_model.bin")
    store = create_store(os.environ["TRIMS_STORE"])
    for name, path in (("bert", "bert"), ("gpt", "gpt"), ("bin", "bin"), ("bare", "bert/model.safetensors")):
        with open_source(directory / path) as source:
            import_model(store, source, name)


def compare(found: Any, wanted: Any) -> float:
    """How much of the parameters is shared. Raises AssertionError when anything differs."""
    assert type(found) is type(wanted) and not found.training
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = (dict(getattr(model, kind)(remove_duplicate=False)) for model in (found, wanted))
        assert list(ours) == list(theirs)
        for name in theirs:
            assert traits(ours[name]) == traits(theirs[name]), name
    assert len(list(found.parameters())) == len(list(wanted.parameters())), "ties"
    ids = torch.arange(8).reshape(1, 8)
    with torch.no_grad():
        assert torch.equal(found(ids)[0], wanted(ids)[0])
    parameters = list(found.parameters())
    return sum(p.nbytes for p in parameters if is_shared(p)) / sum(p.nbytes for p in parameters)


def load(directory: pathlib.Path) -> None:
    import trims

    shares = {}
    made = built()
    make(directory, made)
    for name, wanted in made.items():
        found = CLASSES[name].from_pretrained(directory / name)
        shares[f"{name} redirected"] = compare(found, wanted)
        with trims.open(name) as model:
            taken = trims.transformers.from_trims(model, CLASSES[name])
            shares[f"{name} taken"] = compare(taken, wanted)
            assert model.memory().copied <= sum(buffer.nbytes for buffer in taken.buffers())
        if name == "gpt":
            assert taken.generation_config.to_dict() == found.generation_config.to_dict()
            assert taken.generation_config.max_new_tokens == 3
        for model in (found, taken):
            next(model.parameters()).data.zero_()
        compare(CLASSES[name].from_pretrained(directory / name), wanted)
        compare(trims.transformers.from_trims(name, CLASSES[name]), wanted)
    options(directory, trims.transformers.from_trims)
    print(json.dumps(shares))


def options(directory: pathlib.Path, from_trims: Any) -> None:
    """Keywords mean what they mean to from_pretrained."""
    auto, bert = transformers.AutoModel, transformers.BertModel
    for cls, given in (
        (auto, {"output_attentions": True, "attn_implementation": "eager", "dtype": torch.float16}),
        (bert, {"add_pooling_layer": False, "output_loading_info": True, "num_labels": 3}),
    ):
        wanted, found = cls.from_pretrained(directory / "bert", **given), from_trims("bert", cls, **given)
        if isinstance(wanted, tuple):
            assert found[1] == wanted[1]
            wanted, found = wanted[0], found[0]
        ours, theirs = (model.config.to_dict() for model in (found, wanted))
        assert {**ours, "_name_or_path": ""} == {**theirs, "_name_or_path": ""}
        compare(found, wanted)
    tokenizer = from_trims("bert", transformers.AutoTokenizer)
    assert tokenizer("hello").input_ids == [0]
    assert from_trims("bert", transformers.AutoConfig).hidden_size == 32
    refusals(from_trims)


def refusals(from_trims: Any) -> None:
    from trims.errors import UsageError

    for arguments, options, why in (
        (("bare", transformers.AutoModel), {}, "config.json"),
        (("bert", transformers.AutoModel), {"state_dict": {}}, "state_dict"),
        (("gpt", transformers.AutoModelForImageClassification), {}, "GPT2Config"),
    ):
        try:
            from_trims(*arguments, **options)
        except UsageError as error:
            assert why in str(error), error
        else:
            raise AssertionError(f"{arguments} was not refused")


if __name__ == "__main__":
    load(pathlib.Path(sys.argv[1]))
