"""GLIP's head, which scores words, proved without the package that has its language model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
from tiny_mmdet import proved
from torch import Tensor, nn
from zoo import language_mmdet as language
from zoo import small_mmdet as tiny

TOKENS, WIDTH = 256, 16  # mmdet's head holds texts of 256 tokens
NARROW = {
    "model.backbone.embed_dims": 12,
    "model.backbone.num_heads": [1, 1, 1, 1],
    "model.neck.in_channels": [24, 48, 96],
    "model.bbox_head.num_dyhead_blocks": 1,
    "model.language_model.type": "WordsOnly",
}


class WordsOnly(nn.Module):
    """In the place of BERT: a learned vector a word, the rest of each text padding."""

    max_tokens = TOKENS

    def __init__(self, name: str) -> None:
        super().__init__()
        self.vectors = nn.Embedding(TOKENS, WIDTH)

    def tokenizer(self, texts: list[str], return_tensors: str) -> Any:
        (text,) = texts
        return SimpleNamespace(
            input_ids=torch.zeros(1, len(text.split())),
            char_to_token=lambda position: len(text[: position + 1].split()) - 1,
        )

    def forward(self, texts: list[str]) -> dict[str, Tensor]:
        masks = torch.stack([(torch.arange(TOKENS) < len(text.split())).long() for text in texts])
        hidden = self.vectors(torch.arange(TOKENS)).expand(len(texts), -1, -1)
        return {"embedded": hidden * masks[..., None], "hidden": hidden, "masks": masks}


@pytest.fixture
def glip(monkeypatch: pytest.MonkeyPatch) -> Any:
    from mmdet.models.dense_heads import atss_vlfusion_head
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    widths = SimpleNamespace(from_pretrained=lambda name: SimpleNamespace(hidden_size=WIDTH))
    monkeypatch.setattr(atss_vlfusion_head, "BertConfig", widths)
    monkeypatch.setattr(tiny, "_place_language", lambda model: None)
    monkeypatch.setitem(MODELS.module_dict, "WordsOnly", WordsOnly)
    config = tiny.load_config(tiny.zoo() / "glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py")
    config.merge_from_dict(NARROW)
    torch.manual_seed(0)
    return tiny.build_small(config)


def test_the_proof_holds_with_texts_of_different_length(glip: Any) -> None:
    batch = tiny.batch(3)
    # Padding tokens are masked away image by image, so the rows of the two images differ in length.
    batch["data_samples"][1].set_metainfo({"text": language.words(7)})
    proof, losses = proved(glip, batch)
    (group,) = losses.groups
    assert (group.head, group.terms) == ("ATSSVLFusionHead", ("cls", "bbox", "centerness"))
    assert group.levels == ("P3", "P4", "P5", "P6", "P7")
    assert all(value > 0 for value in proof.losses["all"]["cls"]), "every level has a loss of its own"
