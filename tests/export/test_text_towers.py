"""Models with a Hugging Face text tower, exported: tiny stand-ins for open_clip's architectures."""

import json

import numpy as np
import onnxruntime
import open_clip
import pytest
import tiny
import torch
from safetensors.torch import save_file
from tiny_bundle import FACTS
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from radapter import bundle, models
from radapter.export import configs, export_bundle, golden
from radapter.runtimes.opened import open_bundle

transformers = pytest.importorskip("transformers")

TEXTS = ["a cat", "two green dogs on a very red sofa by the sea", ""]
SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "max_position_embeddings": 100}
SEQ2SEQ = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SEQ2SEQ |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
TOWERS = {
    "roberta-ViT-B-32": (transformers.RobertaConfig, SMALL),
    "xlm-roberta-base-ViT-B-32": (transformers.XLMRobertaConfig, SMALL),
    "coca_roberta-ViT-B-32": (transformers.RobertaConfig, SMALL),
    "nllb-clip-base": (
        transformers.M2M100Config,
        {"d_model": 16, "max_position_embeddings": 1024, **SEQ2SEQ},
    ),
    "mt5-base-ViT-B-32": (
        transformers.MT5Config,
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    ),
}


def write_tokenizer(folder, pad):
    """A byte-level tokenizer of 300 tokens; `pad` as its tower counts it."""
    special = ["<s>", "<pad>", "</s>", "<unk>"] if pad else ["<pad>", "</s>", "<unk>", "<s>"]
    made = Tokenizer(BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 9, trainer)
    ends = [(token, special.index(token)) for token in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", None, ends)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    ).save_pretrained(folder)
    return made.get_vocab_size()


@pytest.fixture
def model(request, tmp_path):
    """A model folder of an architecture with everything small."""
    name = request.param
    kind, settings = TOWERS[name]
    pad = 0 if kind is transformers.MT5Config else 1
    folder = tmp_path / "model"
    folder.mkdir()
    vocabulary = write_tokenizer(folder, pad)
    config = kind(vocab_size=vocabulary, pad_token_id=pad, eos_token_id=2 if pad else 1, **settings)
    config.save_pretrained(tmp_path / "tower")
    model_cfg = open_clip.get_model_config(name)
    model_cfg["embed_dim"] = 8
    model_cfg["vision_cfg"] |= tiny.VISION
    here = {"hf_model_name": str(tmp_path / "tower"), "hf_tokenizer_name": "on/the-hub"}
    model_cfg["text_cfg"] |= here
    if "multimodal_cfg" in model_cfg:
        model_cfg["text_cfg"]["width"] = 16
        model_cfg["multimodal_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
        model_cfg["multimodal_cfg"]["context_length"] = 76
    cfg = {"mean": tiny.MEAN, "std": tiny.STD}
    whole = json.dumps({"model_cfg": model_cfg, "preprocess_cfg": cfg})
    (folder / "open_clip_config.json").write_text(whole)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False
        )
        for parameter in made.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return models.load(folder)


@pytest.mark.parametrize("model", ["xlm-roberta-base-ViT-B-32"], indirect=True)
def test_the_context_length_is_the_tokenizers(model, tmp_path):
    """Not the number of positions that the tower was made for."""
    assert model.model.context_length == 100
    assert model.context_length == 77
    configs.write_tokenizer(tmp_path, model.tokenizer, context_length=77, dynamic=False)
    equal, _ = golden.token_ids(tmp_path, model, dynamic=False)
    assert len(equal) > 20
    assert {len(row["ids"]) for row in equal} == {77}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", sorted(set(TOWERS) - {"xlm-roberta-base-ViT-B-32"}), indirect=True
)
def test_a_bundle_has_the_features_of_the_model(model, tmp_path):
    assert model.context_length == 77
    assert model.tokenizer(TEXTS).shape == (3, 77)
    manifest = export_bundle(model, tmp_path / "bundle", facts=FACTS)
    assert (manifest["context_length"], manifest["text_length"]) == (77, "fixed")
    opened = open_bundle(tmp_path / "bundle")
    tokens = opened.tokenizer(TEXTS)
    assert torch.equal(tokens, model.tokenizer(TEXTS))
    with torch.no_grad():
        expected = model.model.encode_text(model.tokenizer(TEXTS), normalize=True)
    assert torch.cdist(expected, expected)[0, 1] > 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / bundle.TEXT)
    (found,) = session.run(None, {"input_ids": tokens.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    rows = json.loads((tmp_path / "bundle" / golden.FILE).read_text())["texts"]["equal"]
    assert {len(row["ids"]) for row in rows} == {77}


@pytest.mark.parametrize("model", ["roberta-ViT-B-32"], indirect=True)
def test_a_saved_model_needs_no_hub(model, tmp_path):
    """Neither for the configuration of its tower nor for its tokenizer."""
    (tmp_path / "saved").mkdir()
    models.save(tmp_path / "saved", model, model.model.state_dict())
    (tmp_path / "tower").rename(tmp_path / "gone")
    again = models.load(tmp_path / "saved")
    assert again.weights_hash == model.weights_hash
    with torch.no_grad():
        first, second = (m.model.encode_text(m.tokenizer(TEXTS)) for m in (model, again))
    assert torch.equal(first, second)
    assert again.config == model.config
