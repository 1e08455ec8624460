"""How many tokens the vocabulary has, where a script leaves that to the tokenizer."""

from collections.abc import Mapping
from typing import Any

from autopar.launchers.megatron.args.flags import get
from cost_models.catalog.models import load_model, model_names

_BY_TOKENIZER = (
    ("llama-3", 128256),
    ("llama3", 128256),
    ("llama-2", 32000),
    ("llama2", 32000),
    ("mixtral", 32000),
    ("mistral", 32000),
    ("deepseek-v3", 129280),
    ("deepseek-v2", 102400),
    ("qwen3", 151936),
    ("qwen2.5", 152064),
    ("gpt-oss", 201088),
    ("gpt2", 50257),
)
"""Part of the tokenizer's name or path, in lower case, and its size."""
_UNKNOWN = 128000


def vocabulary(values: Mapping[str, Any], notes: dict[str, str]) -> int:
    """Tokens: given, or those of the tokenizer, or of the catalog's model with that shape."""
    for name in ("vocab_size", "padded_vocab_size"):
        if get(values, name):
            return int(get(values, name))
    tokenizer = f"{get(values, 'tokenizer_type')} {get(values, 'tokenizer_model')}".lower()
    for part, size in _BY_TOKENIZER:
        if part in tokenizer:
            notes["vocab_size"] = f"{size}, as of tokenizers called {part!r}"
            return size
    shape = (
        get(values, "num_layers"),
        get(values, "hidden_size"),
        get(values, "num_attention_heads"),
    )
    for candidate in model_names():
        model = load_model(candidate)
        if (model.n_layers, model.hidden_size, model.n_heads) == shape:
            notes["vocab_size"] = f"{model.vocab_size}, as of {candidate}, which has this shape"
            return model.vocab_size
    notes["vocab_size"] = f"not given; {_UNKNOWN} is assumed"
    return _UNKNOWN
