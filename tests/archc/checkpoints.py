"""Small checkpoints of `transformers`, as its ``save_pretrained`` writes them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4}  # fmt: skip


def llama(folder: Path, shard: str = "5GB") -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=64, eos_token_id=None)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def bert(folder: Path) -> None:
    transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).save_pretrained(folder)


def t5(folder: Path) -> transformers.T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                   decoder_start_token_id=0, eos_token_id=1)  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder)
    return model


def mbart(folder: Path) -> transformers.MBartForConditionalGeneration:
    """One whose texts begin with the word for their language."""
    torch.manual_seed(0)
    config = transformers.MBartConfig(
        vocab_size=300, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
        decoder_start_token_id=2, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = transformers.MBartForConditionalGeneration(config).eval()
    model.generation_config.forced_bos_token_id, model.generation_config.forced_eos_token_id = 7, None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder)
    return model
