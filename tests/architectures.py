"""Causal language models of every kind that transformers offers, tiny and random; layers of all kinds in one model.

Windows and chunks are shorter than the episodes of the tests, learned positions just long enough.
"""

import transformers as tf

VOCABULARY, END, PADDING = 264, 258, 256
BASE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 512, "initializer_range": 0.3,
    "bos_token_id": 257, "eos_token_id": END, "pad_token_id": PADDING,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MIXED = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 16}
LINEAR = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "head_dim": 8,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_expand": 2}
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
GPT = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3, "eos_token_id": END,
    "bos_token_id": 257,
}  # fmt: skip
FALCON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "initializer_range": 0.3, "max_position_embeddings": 512, "eos_token_id": END, "bos_token_id": 257,
}  # fmt: skip


def _longrope():
    return {
        "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0], "rope_theta": 10000.0,
        "original_max_position_embeddings": 80,
    }  # fmt: skip


#: Name -> a config. What follows the underscore tells apart variants of one architecture.
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**BASE),
    "llama_tied": lambda: tf.LlamaConfig(**BASE, tie_word_embeddings=True),
    "llama_dynamic": lambda: tf.LlamaConfig(
        **{**BASE, "max_position_embeddings": 80},
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
    "llama_yarn": lambda: tf.LlamaConfig(
        **BASE,
        rope_parameters={
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "llama4": lambda: tf.Llama4TextConfig(
        **{**BASE, "num_hidden_layers": 4},
        attention_chunk_size=16,
        head_dim=8,
        num_local_experts=2,
        intermediate_size_mlp=48,
    ),
    "qwen2": lambda: tf.Qwen2Config(**BASE),
    "qwen2_window": lambda: tf.Qwen2Config(**{**BASE, **MIXED}, use_sliding_window=True, max_window_layers=1),
    "qwen3": lambda: tf.Qwen3Config(**BASE, head_dim=8),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(**BASE, **EXPERTS, head_dim=8, output_router_logits=True),
    "qwen3_next": lambda: tf.Qwen3NextConfig(
        **{**BASE, **LINEAR, **DELTA, **EXPERTS}, shared_expert_intermediate_size=16
    ),
    "qwen3_5": lambda: tf.Qwen3_5TextConfig(**{**BASE, **LINEAR, **DELTA}),
    "mistral": lambda: tf.MistralConfig(**BASE, sliding_window=16),
    "mixtral": lambda: tf.MixtralConfig(**BASE, num_local_experts=4, output_router_logits=True),
    "gemma": lambda: tf.GemmaConfig(**BASE, head_dim=8),
    "gemma2": lambda: tf.Gemma2Config(**{**BASE, **MIXED}, head_dim=8, query_pre_attn_scalar=8),
    "gemma3": lambda: tf.Gemma3TextConfig(**{**BASE, **MIXED}, head_dim=8, query_pre_attn_scalar=8),
    "gemma3_vision": lambda: tf.Gemma3Config(
        text_config={**BASE, **MIXED, "head_dim": 8, "query_pre_attn_scalar": 8},
        mm_tokens_per_image=1,
        image_token_index=262,
        boi_token_index=260,
        eoi_token_index=261,
        vision_config=VISION,
    ),
    "gpt_oss": lambda: tf.GptOssConfig(**{**BASE, **MIXED}, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    "cohere": lambda: tf.CohereConfig(**BASE),
    "cohere2": lambda: tf.Cohere2Config(**{**BASE, **MIXED}),
    "phi": lambda: tf.PhiConfig(**BASE),
    "phi3": lambda: tf.Phi3Config(**BASE, sliding_window=16),
    "phi3_longrope": lambda: tf.Phi3Config(**BASE, original_max_position_embeddings=80, rope_parameters=_longrope()),
    "olmo2": lambda: tf.Olmo2Config(**BASE),
    "olmo3": lambda: tf.Olmo3Config(**{**BASE, **MIXED}),
    "glm4": lambda: tf.Glm4Config(**BASE, head_dim=8),
    "granite": lambda: tf.GraniteConfig(**BASE, logits_scaling=4.0),
    "smollm3": lambda: tf.SmolLM3Config(**BASE),
    "exaone4": lambda: tf.Exaone4Config(**{**BASE, **MIXED}),
    "ernie4_5": lambda: tf.Ernie4_5Config(**BASE, head_dim=8),
    "deepseek_v3": lambda: tf.DeepseekV3Config(**{**BASE, **LATENT}),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=96,
        initializer_range=0.3,
        eos_token_id=END,
        bos_token_id=257,
    ),
    "gpt_neo": lambda: tf.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=16,
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=END,
        bos_token_id=257,
    ),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**BASE),
    "gptj": lambda: tf.GPTJConfig(**GPT, rotary_dim=8, n_positions=512),
    "opt": lambda: tf.OPTConfig(**BASE, ffn_dim=48, word_embed_proj_dim=32),
    "bloom": lambda: tf.BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        eos_token_id=END,
        bos_token_id=257,
        pad_token_id=PADDING,
    ),
    "mpt": lambda: tf.MptConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        n_heads=4,
        n_layers=2,
        max_seq_len=512,
        initializer_range=0.3,
        eos_token_id=END,
        bos_token_id=257,
    ),
    "falcon": lambda: tf.FalconConfig(**FALCON),
    "falcon_alibi": lambda: tf.FalconConfig(**FALCON, alibi=True),
    "stablelm": lambda: tf.StableLmConfig(**BASE),
    "starcoder2": lambda: tf.Starcoder2Config(**BASE, sliding_window=16),
    "minimax": lambda: tf.MiniMaxConfig(**{**BASE, **LINEAR}, num_local_experts=4, block_size=16, head_dim=8),
    "lfm2": lambda: tf.Lfm2Config(
        **{**BASE, "num_hidden_layers": 4}, layer_types=["conv", "full_attention"] * 2, full_attn_idxs=[1, 3]
    ),
    "bamba": lambda: tf.BambaConfig(**{**BASE, **MAMBA, "num_hidden_layers": 4}, attn_layer_indices=[1, 3]),
    "jamba": lambda: tf.JambaConfig(
        **{**BASE, "num_hidden_layers": 4},
        num_experts=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=8,
        use_mamba_kernels=False,
    ),
    "mamba": lambda: tf.MambaConfig(**BASE, state_size=8),
    "mamba2": lambda: tf.Mamba2Config(
        **{**BASE, "num_attention_heads": 4}, state_size=8, num_heads=8, head_dim=8, expand=2, n_groups=1, chunk_size=16
    ),
    "recurrent_gemma": lambda: tf.RecurrentGemmaConfig(
        **{**BASE, "num_hidden_layers": 3}, lru_width=32, attention_window_size=16, head_dim=8
    ),
    "bart": lambda: tf.BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        decoder_layers=2,
        encoder_layers=2,
        decoder_attention_heads=4,
        encoder_attention_heads=4,
        decoder_ffn_dim=48,
        encoder_ffn_dim=48,
        max_position_embeddings=512,
        init_std=0.3,
        eos_token_id=END,
        bos_token_id=257,
        pad_token_id=PADDING,
    ),
    "openai_gpt": lambda: tf.OpenAIGPTConfig(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3
    ),
    "bert": lambda: tf.BertConfig(**BASE),
    "bert_decoder": lambda: tf.BertConfig(**BASE, is_decoder=True),
    "roberta_decoder": lambda: tf.RobertaConfig(**{**BASE, "pad_token_id": 1}, is_decoder=True),
}
