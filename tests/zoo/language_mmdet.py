"""A BERT small enough for a proof, in a folder, where mmdet's vision-language models look for one by name.

With it nothing is downloaded. Its vocabulary is the words of `words` and a full stop.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

NAME = "tiny-bert"
"""Stands for the folder in a config that is only looked at."""

_WIDTH = 768  # mmdet's fusion layers have BERT base's built in


def words(count: int) -> tuple[str, ...]:
    """One word a class, each one token."""
    return tuple(f"c{i}" for i in range(count))


@cache
def folder() -> Path:
    """The folder, made once a process and removed at its end.

    Raises:
        ImportError: where transformers is not installed.
    """
    import torch
    from transformers import BertConfig, BertModel

    made = Path(tempfile.mkdtemp(prefix="msbal-bert-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *words(100)]
    (made / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    (made / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=_WIDTH,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        BertModel(config, add_pooling_layer=False).save_pretrained(made)
    return made
