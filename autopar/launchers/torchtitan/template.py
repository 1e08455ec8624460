"""Text of the Python module that torchtitan 0.3.0 loads; every value in it is a literal."""

from collections.abc import Mapping
from pprint import pformat
from textwrap import fill
from typing import Any

from autopar.launchers.knobs import comments
from autopar.launchers.torchtitan.models import CONFIGS, TitanModel

LITERAL_FIELDS_OF_ITS_OWN = ("activation_checkpoint", "converters")
"""Values that name a class; everything else is written as it is."""

_CONVERTER_ARGUMENTS: Mapping[str, str] = {
    "Float8LinearConverter": 'filter_fqns=["lm_head"], model_compile_enabled=True',
    "MXFP8LinearConverter": "model_compile_enabled=True",
    "NVFP4LinearConverter": 'fqns=["layers"], model_compile_enabled=True',
}

_LLAMA_LAYERS = """\
    model.layers = _build_llama3_layers(
        n_layers=MODEL["n_layers"],
        dim=dim,
        n_heads=MODEL["n_heads"],
        n_kv_heads=MODEL["n_kv_heads"],
        hidden_dim=MODEL["hidden_dim"],
        attn_backend="flex",
        rope=ComplexRoPE.Config(
            dim=MODEL["head_dim"], max_seq_len=MODEL["max_seq_len"], theta=500000.0
        ),
    )
"""
_QWEN_LAYERS = """\
    model.layers = {builder}(
        n_layers=MODEL["n_layers"],
        dim=dim,
        n_heads=MODEL["n_heads"],
        n_kv_heads=MODEL["n_kv_heads"],
        head_dim=MODEL["head_dim"],
        attn_backend="flex",
        rope=CosSinRoPE.Config(
            dim=MODEL["head_dim"], max_seq_len=MODEL["max_seq_len"], theta=1000000.0
        ),
{arguments}
    )
    if not MODEL["qk_norm"]:
        for layer in model.layers:
            layer.attention.qk_norm = None
"""
_DENSE = '        hidden_dim=MODEL["hidden_dim"],'
_EXPERTS = """\
        moe_hidden_dim=MODEL["hidden_dim"],
        num_experts=MODEL["num_experts"],
        top_k=MODEL["top_k"],
        moe_comm_backend="standard","""


def module_text(
    head: list[str],
    function: str,
    model: TitanModel,
    values: Mapping[str, Any],
    *,
    mtp: int,
) -> str:
    """The module with one config function that sets ``values``."""
    ac, converter = values["activation_checkpoint"], values["converters"]
    imports = [f"from torchtitan.models.{model.family}.config_registry import {model.config}"]
    imports.append("from torchtitan.trainer import Trainer")
    if ac:
        imports.append(f"from torchtitan.distributed.activation_checkpoint import {ac}")
    if converter:
        imports.append(f"from torchtitan.components.quantization import {converter}")
    names, body = ["model_registry"], [f"    config = {model.config}()"]
    before: list[str] = []
    convert = (
        f"{converter}.Config({_CONVERTER_ARGUMENTS[converter]})" if converter is not None else None
    )
    if model.shape is not None:
        imports.append("from torchtitan.protocols.model_spec import ModelSpec")
        imports.append("from dataclasses import replace")
        before, own_names, own_imports = _own_model(model)
        names += own_names
        imports += own_imports
        converters = f"converters=[{convert}]" if convert is not None else ""
        body.append(f"    config.model_spec = _model_spec({converters})")
        body.append('    config.loss.loss_fn.global_vocab_size = MODEL["vocab_size"]')
    else:
        body += _flavor(model, convert, mtp=mtp)
        if mtp and model.family == "deepseek_v3":
            names.append("MTPLoss")
            imports.append("from torchtitan.models.common.config_utils import decoder_vocab_size")
        if CONFIGS.get((model.family, model.flavor)) != model.config:
            imports.append("from torchtitan.models.common.config_utils import decoder_vocab_size")
    imports.append(f"from torchtitan.models.{model.family} import {', '.join(sorted(names))}")
    body += [
        f"    config.{path} = {_literal(value)}"
        for path, value in values.items()
        if path not in LITERAL_FIELDS_OF_ITS_OWN
    ]
    body.append(f"    config.activation_checkpoint = {f'{ac}.Config()' if ac else None}")
    body.append("    config.__post_init__()  # assignments skip the checks of the constructor")
    return "\n".join(
        [
            *comments(head),
            "",
            *sorted(set(imports)),
            *before,
            "",
            "",
            f"def {function}() -> Trainer.Config:",
            *body,
            "    return config",
            "",
        ]
    )


def _literal(value: Any) -> str:
    """A Python literal; lists of lists take a line, or several, for each of the inner ones."""
    if not (isinstance(value, list) and value and isinstance(value[0], list)):
        return repr(value)
    inner = (
        fill(repr(row), 96, initial_indent=" " * 8, subsequent_indent=" " * 9) for row in value
    )
    return "[\n" + "".join(f"{row},\n" for row in inner) + "    ]"


def _flavor(model: TitanModel, convert: str | None, *, mtp: int) -> list[str]:
    arguments = [repr(model.flavor)]
    if convert is not None:
        arguments.append(f"converters=[{convert}]")
    own = model.family == "deepseek_v3" and mtp
    if own:
        arguments.append(f"num_mtp_layers={mtp}")
    lines = [f"    config.model_spec = model_registry({', '.join(arguments)})"]
    vocabulary = "decoder_vocab_size(config.model_spec)"
    if own:
        lines.append(f"    config.loss = MTPLoss.Config(global_vocab_size={vocabulary})")
    elif CONFIGS.get((model.family, model.flavor)) != model.config:
        lines.append(f"    config.loss.loss_fn.global_vocab_size = {vocabulary}")
    return lines


def _own_model(model: TitanModel) -> tuple[list[str], list[str], list[str]]:
    """A function that builds the shape, and what it needs from the family and from elsewhere."""
    assert model.shape is not None  # noqa: S101  (the caller looked)
    imports = ["from torchtitan.models.common import CosSinRoPE"]
    names, initial, layers = [], "", ""
    if model.family == "llama3":
        names = ["_build_llama3_layers", "_output_linear_init"]
        imports = ["from torchtitan.models.common import ComplexRoPE"]
        initial, layers = ", param_init=_output_linear_init(dim)", _LLAMA_LAYERS
    else:
        experts = "num_experts" in model.shape
        builder = "_build_qwen3_moe_layers" if experts else "_build_qwen3_layers"
        names = [builder]
        layers = _QWEN_LAYERS.format(builder=builder, arguments=_EXPERTS if experts else _DENSE)
    text = f"""

MODEL = {pformat(dict(model.shape), width=92, sort_dicts=False)}


def _model_spec(converters=()) -> ModelSpec:
    spec = model_registry({model.flavor!r})
    model, dim, vocabulary = spec.model, MODEL["dim"], MODEL["vocab_size"]
    model.dim, model.vocab_size = dim, vocabulary
    model.tok_embeddings = replace(
        model.tok_embeddings, num_embeddings=vocabulary, embedding_dim=dim
    )
    model.norm = replace(model.norm, normalized_shape=dim)
    model.lm_head = replace(
        model.lm_head, in_features=dim, out_features=vocabulary{initial}
    )
{layers}    for converter in converters:
        model = converter.build().convert(model)
    return replace(spec, model=model)"""
    return text.splitlines(), names, imports
