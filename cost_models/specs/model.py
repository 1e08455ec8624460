"""A transformer's shape, and the parameters it has.

Every count below is of scalars (parameters), not bytes.  A layer is an attention
block followed by an MLP block; the MLP is dense or a mixture of experts (MoE).

Symbol in the papers  Name here                      Unit
--------------------  -----------------------------  ---------------
l                     ``n_layers``                   layers
h                     ``hidden_size``                scalars
a                     ``n_heads``                    heads
d_h                   ``head_dim``                   scalars
v                     ``vocab_size``                 tokens
E, k                  ``n_experts``, ``top_k``       experts

References
----------
.. [1] A. Vaswani et al., "Attention Is All You Need," 2017. arXiv:1706.03762
.. [2] DeepSeek-AI, "DeepSeek-V2," 2024, section 2.1 (MLA). arXiv:2405.04434
.. [3] DeepSeek-AI, "DeepSeek-V3 Technical Report," 2024, section 2.2 (MTP). arXiv:2412.19437
"""

from dataclasses import dataclass
from typing import Literal, get_args

from cost_models.specs.errors import SpecError, require_not_negative, require_positive

Attention = Literal["gqa", "mla"]
Norm = Literal["rmsnorm", "layernorm"]
Position = Literal["rope", "learned", "alibi", "none"]

MAX_LAYERS = 100_000
"""More layers than this are a slip of the pen, and would fill the memory with indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder-only transformer, as its config file describes it."""

    name: str
    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_size: int
    """Width of a dense MLP; of the MoE layers see ``moe_ffn_size``."""
    vocab_size: int

    gated_mlp: bool = True
    """SwiGLU and kin: three matrices instead of two."""
    tied_embeddings: bool = False
    norm: Norm = "rmsnorm"
    norms_per_layer: int = 2
    """Norms of the whole hidden vector in one layer; 4 in Gemma 2 and 3."""
    embedding_norm: bool = False
    """A norm right after the embedding (BLOOM)."""
    qk_norm: bool = False
    """A norm of queries and keys over ``head_dim`` (Qwen 3, Gemma 3)."""
    position: Position = "rope"
    max_sequence_length: int | None = None
    """Longest sequence that the positions were made for; the table's rows where learned."""
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    attention_sinks: bool = False
    """A learned logit per head (gpt-oss)."""
    dropout: bool = False
    """Dropout is active in training, so its masks are kept (GPT-2 and GPT-3 era)."""
    make_vocab_size_divisible_by: int = 128
    """The launcher pads the vocabulary to a multiple of this times tensor-parallel."""

    attention: Attention = "gqa"
    q_lora_rank: int = 0
    """0: the queries are projected at once (DeepSeek V2 Lite)."""
    kv_lora_rank: int = 0
    qk_rope_head_dim: int = 0
    qk_nope_head_dim: int = 0
    v_head_dim: int = 0

    sliding_window: int | None = None
    sliding_window_layers: tuple[int, ...] = ()
    """Indices of the layers whose attention sees ``sliding_window`` tokens only."""

    n_experts: int = 0
    top_k: int = 0
    moe_ffn_size: int = 0
    shared_expert_ffn_size: int = 0
    """Summed width of all shared experts."""
    shared_expert_gate: bool = False
    """A gate scalar in front of the shared expert (Qwen 2 MoE)."""
    moe_layers: tuple[int, ...] = ()
    """Indices of the layers whose MLP is a mixture of experts."""
    n_expert_groups: int = 0
    """Groups that the experts are divided into, for routing limited to some of them."""
    routed_groups: int = 0
    """A token's experts lie in at most this many groups of experts, one group on each node
    (node-limited routing of DeepSeek V3); 0 is no limit."""
    router_bias: bool = False
    """A bias per expert in the router: learned logits (gpt-oss) or balancing (DeepSeek V3)."""
    moe_bias: bool = False
    """Biases inside the experts (gpt-oss)."""

    mtp_layers: int = 0
    """Multi-token-prediction modules after the last layer [3]."""

    source: str = ""

    def __post_init__(self) -> None:
        require_positive(
            "model",
            n_layers=self.n_layers,
            hidden_size=self.hidden_size,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            norms_per_layer=self.norms_per_layer,
            make_vocab_size_divisible_by=self.make_vocab_size_divisible_by,
        )
        require_not_negative(
            "model",
            ffn_size=self.ffn_size,
            q_lora_rank=self.q_lora_rank,
            n_experts=self.n_experts,
            top_k=self.top_k,
            moe_ffn_size=self.moe_ffn_size,
            shared_expert_ffn_size=self.shared_expert_ffn_size,
            mtp_layers=self.mtp_layers,
        )
        self._require_known_choices()
        if self.n_layers > MAX_LAYERS:
            raise SpecError(f"model.n_layers must be <= {MAX_LAYERS}, got {self.n_layers}")
        if self.max_sequence_length is not None:
            require_positive("model", max_sequence_length=self.max_sequence_length)
        elif self.position == "learned":
            raise SpecError("model.max_sequence_length must be given where position is learned")
        if self.sliding_window is not None:
            require_positive("model", sliding_window=self.sliding_window)
        if self.n_heads % self.n_kv_heads:
            raise SpecError(
                f"model.n_heads must be a multiple of n_kv_heads {self.n_kv_heads}, "
                f"got {self.n_heads}"
            )
        if self.attention == "mla":
            require_positive(
                "model",
                kv_lora_rank=self.kv_lora_rank,
                qk_rope_head_dim=self.qk_rope_head_dim,
                qk_nope_head_dim=self.qk_nope_head_dim,
                v_head_dim=self.v_head_dim,
            )
        self._require_consistent_layers()

    def _require_known_choices(self) -> None:
        for name, value, choices in (
            ("norm", self.norm, get_args(Norm)),
            ("position", self.position, get_args(Position)),
            ("attention", self.attention, get_args(Attention)),
        ):
            if value not in choices:
                raise SpecError(f"model.{name} must be one of {', '.join(choices)}, got {value!r}")

    def _require_consistent_layers(self) -> None:
        if bool(self.n_experts) != bool(self.moe_layers):
            raise SpecError(
                "model.moe_layers and n_experts go together, got "
                f"{len(self.moe_layers)} MoE layers and {self.n_experts} experts"
            )
        if self.n_experts:
            require_positive("model", moe_ffn_size=self.moe_ffn_size, top_k=self.top_k)
            if self.top_k > self.n_experts:
                raise SpecError(
                    f"model.top_k must be <= {self.n_experts} experts, got {self.top_k}"
                )
        if len(self.moe_layers) < self.n_layers:
            require_positive("model", ffn_size=self.ffn_size)
        if self.sliding_window_layers and not self.sliding_window:
            raise SpecError("model.sliding_window_layers needs model.sliding_window")
        for name, indices in (
            ("moe_layers", self.moe_layers),
            ("sliding_window_layers", self.sliding_window_layers),
        ):
            if any(not 0 <= i < self.n_layers for i in indices) or len(set(indices)) < len(indices):
                raise SpecError(
                    f"model.{name} must be distinct layer indices below {self.n_layers}, "
                    f"got {list(indices)}"
                )

    # ------------------------------------------------------------------ widths
    @property
    def is_moe(self) -> bool:
        """Some layer is a mixture of experts."""
        return self.n_experts > 0

    @property
    def query_size(self) -> int:
        """Width of all queries: a d_h; with MLA, nope and rope parts together."""
        if self.attention == "mla":
            return self.n_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        return self.n_heads * self.head_dim

    @property
    def value_size(self) -> int:
        """Width of the attention's output before its projection."""
        if self.attention == "mla":
            return self.n_heads * self.v_head_dim
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of the keys (or of the values) as the attention kernel reads them."""
        if self.attention == "mla":
            return self.query_size
        return self.n_kv_heads * self.head_dim

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm of the hidden vector."""
        return self.hidden_size * (2 if self.norm == "layernorm" else 1)

    # -------------------------------------------------------------- parameters
    @property
    def attention_parameters(self) -> int:
        """One layer's attention, its norms over heads included [1, 2]."""
        h = self.hidden_size
        if self.attention == "mla":
            queries = (
                h * self.q_lora_rank + self.q_lora_rank * self.query_size + self.q_lora_rank
                if self.q_lora_rank
                else h * self.query_size
            )
            keys_values = (
                h * (self.kv_lora_rank + self.qk_rope_head_dim)
                + self.kv_lora_rank
                + self.kv_lora_rank * self.n_heads * (self.qk_nope_head_dim + self.v_head_dim)
            )
            return queries + keys_values + self.value_size * h
        qkv_width = self.query_size + 2 * self.kv_size
        return (
            h * qkv_width
            + self.value_size * h
            + (qkv_width if self.qkv_bias else 0)
            + (h if self.attention_out_bias else 0)
            + (2 * self.head_dim if self.qk_norm else 0)
            + (self.n_heads if self.attention_sinks else 0)
        )

    def _mlp_parameters(self, width: int, *, bias: bool) -> int:
        h, up = self.hidden_size, 2 if self.gated_mlp else 1
        return (up + 1) * h * width + ((up * width + h) if bias else 0)

    @property
    def dense_mlp_parameters(self) -> int:
        """One dense layer's MLP."""
        return self._mlp_parameters(self.ffn_size, bias=self.mlp_bias)

    @property
    def expert_parameters(self) -> int:
        """One routed expert."""
        return self._mlp_parameters(self.moe_ffn_size, bias=self.moe_bias)

    @property
    def moe_shared_parameters(self) -> int:
        """What an MoE layer's MLP has outside its routed experts: router and shared experts."""
        shared = (
            self._mlp_parameters(self.shared_expert_ffn_size, bias=self.mlp_bias)
            if self.shared_expert_ffn_size
            else 0
        )
        return (
            self.hidden_size * self.n_experts
            + (self.n_experts if self.router_bias else 0)
            + shared
            + (self.hidden_size if self.shared_expert_gate else 0)
        )

    @property
    def embedding_parameters(self) -> int:
        """The token table, learned positions, and the norm behind them."""
        positions = (self.max_sequence_length or 0) if self.position == "learned" else 0
        norm = self.norm_parameters if self.embedding_norm else 0
        return (self.vocab_size + positions) * self.hidden_size + norm

    @property
    def head_parameters(self) -> int:
        """The output projection's own matrix (none where tied) and the last norm."""
        own = 0 if self.tied_embeddings else self.vocab_size * self.hidden_size
        return own + self.norm_parameters + (self.vocab_size if self.head_bias else 0)

    @property
    def mtp_parameters(self) -> int:
        """All MTP modules: a projection of two hidden vectors, three norms, one layer each [3].

        Embedding and head are shared with the main model.
        """
        if not self.mtp_layers:
            return 0
        h = self.hidden_size
        mlp = (
            self.moe_shared_parameters + self.n_experts * self.expert_parameters
            if self.is_moe
            else self.dense_mlp_parameters
        )
        layer = self.attention_parameters + mlp + self.norms_per_layer * self.norm_parameters
        return self.mtp_layers * (2 * h * h + 3 * self.norm_parameters + layer)

    @property
    def n_parameters(self) -> int:
        """All parameters of the main model, MTP modules left out as the papers do."""
        n_moe = len(self.moe_layers)
        return (
            self.embedding_parameters
            + self.n_layers
            * (self.attention_parameters + self.norms_per_layer * self.norm_parameters)
            + (self.n_layers - n_moe) * self.dense_mlp_parameters
            + n_moe * (self.moe_shared_parameters + self.n_experts * self.expert_parameters)
            + self.head_parameters
        )

    @property
    def n_active_parameters(self) -> int:
        """Parameters that one token meets: ``top_k`` of the routed experts.

        Embedding and head are both counted, as Mistral and Qwen do.  DeepSeek, Moonshot and
        OpenAI leave the embedding out: take ``embedding_parameters`` off for their figure.
        """
        idle = self.n_experts - self.top_k
        return self.n_parameters - len(self.moe_layers) * idle * self.expert_parameters
