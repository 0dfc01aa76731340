"""The conversions of every family once more, written by hand: what the tables are compared with."""

from einops import rearrange


def by_hand(function, hf_model, keeps_groups):
    """Yields our parameters' names and values: modules of a live model, einops and slices, no table."""
    functions = {"gpt2": gpt2, "gpt_neox": gpt_neox, "llama_like": llama_like}
    return functions[function](hf_model, hf_model.config, keeps_groups)


def gpt2(hf_model, config, keeps_groups):
    body, heads = hf_model.transformer, config.n_head
    yield from {"embed.W_E": body.wte.weight, "pos_embed.W_pos": body.wpe.weight, **norm("ln_final", body.ln_f)}.items()
    for layer, block in enumerate(body.h):
        fused = zip("QKV", block.attn.c_attn.weight.chunk(3, dim=1), block.attn.c_attn.bias.chunk(3))
        out = {}
        for name, weight, bias in fused:
            out[f"attn.W_{name}"] = rearrange(weight, "m (n h) -> n m h", n=heads)
            out[f"attn.b_{name}"] = rearrange(bias, "(n h) -> n h", n=heads)
        out |= {
            "attn.W_O": rearrange(block.attn.c_proj.weight, "(n h) m -> n h m", n=heads),
            "attn.b_O": block.attn.c_proj.bias,
            "mlp.W_in": block.mlp.c_fc.weight,
            "mlp.b_in": block.mlp.c_fc.bias,
            "mlp.W_out": block.mlp.c_proj.weight,
            "mlp.b_out": block.mlp.c_proj.bias,
            **norm("ln1", block.ln_1),
            **norm("ln2", block.ln_2),
        }
        yield from ((f"blocks.{layer}.{name}", tensor) for name, tensor in out.items())
    yield "unembed.W_U", hf_model.get_output_embeddings().weight.T


def gpt_neox(hf_model, config, keeps_groups):
    body, heads = hf_model.gpt_neox, config.num_attention_heads
    yield from {"embed.W_E": body.embed_in.weight, **norm("ln_final", body.final_layer_norm)}.items()
    for layer, block in enumerate(body.layers):
        out = {}
        d_head = config.hidden_size // heads
        for place, name in enumerate("QKV"):
            rows = [3 * d_head * head + d_head * place + i for head in range(heads) for i in range(d_head)]
            fused = block.attention.query_key_value
            out[f"attn.W_{name}"] = fused.weight[rows].reshape(heads, d_head, -1).transpose(1, 2)
            if fused.bias is not None:
                out[f"attn.b_{name}"] = fused.bias[rows].reshape(heads, d_head)
        if block.attention.dense.bias is not None:
            out["attn.b_O"] = block.attention.dense.bias
        out |= {
            "attn.W_O": rearrange(block.attention.dense.weight, "m (n h) -> n h m", n=heads),
            "mlp.W_in": block.mlp.dense_h_to_4h.weight.T,
            "mlp.b_in": block.mlp.dense_h_to_4h.bias,
            "mlp.W_out": block.mlp.dense_4h_to_h.weight.T,
            "mlp.b_out": block.mlp.dense_4h_to_h.bias,
            **norm("ln1", block.input_layernorm),
            **norm("ln2", block.post_attention_layernorm),
        }
        yield from ((f"blocks.{layer}.{name}", tensor) for name, tensor in out.items())
    yield "unembed.W_U", hf_model.get_output_embeddings().weight.T


def llama_like(hf_model, config, keeps_groups):
    body, heads, groups = hf_model.model, config.num_attention_heads, config.num_key_value_heads
    yield from {"embed.W_E": body.embed_tokens.weight, "ln_final.w": body.norm.weight}.items()
    for layer, block in enumerate(body.layers):
        attention, mlp = block.self_attn, block.mlp
        d_head = attention.head_dim
        biases = {}
        if "qkv_proj" in dict(attention.named_children()):
            q, k, v = attention.qkv_proj.weight.split([heads * d_head, groups * d_head, groups * d_head])
            gate, up = mlp.gate_up_proj.weight.chunk(2)
        else:
            q, k, v = (module.weight for module in (attention.q_proj, attention.k_proj, attention.v_proj))
            gate, up = mlp.gate_proj.weight, mlp.up_proj.weight
            modules = {"attn.b_Q": attention.q_proj, "attn.b_K": attention.k_proj, "attn.b_V": attention.v_proj,
                       "attn.b_O": attention.o_proj, "mlp.b_gate": mlp.gate_proj, "mlp.b_in": mlp.up_proj,
                       "mlp.b_out": mlp.down_proj}  # fmt: skip
            biases = {name: module.bias for name, module in modules.items() if module.bias is not None}
        norms = {f"attn.{name}.w": module.weight for name, module in attention.named_children() if "norm" in name}
        out = {
            **norms,
            "attn.W_Q": rearrange(q, "(n h) m -> n m h", n=heads),
            "attn.W_K": rearrange(k, "(n h) m -> n m h", n=groups),
            "attn.W_V": rearrange(v, "(n h) m -> n m h", n=groups),
            "attn.W_O": rearrange(attention.o_proj.weight, "m (n h) -> n h m", n=heads),
            "mlp.W_gate": gate.T,
            "mlp.W_in": up.T,
            "mlp.W_out": mlp.down_proj.weight.T,
            "ln1.w": block.input_layernorm.weight,
            "ln2.w": block.post_attention_layernorm.weight,
            **{name: bias.view(-1, d_head) if name[-1] in "QKV" else bias for name, bias in biases.items()},
        }
        for name, tensor in out.items():
            if keeps_groups and name.endswith(("_K", "_V")):
                name = name.replace("attn.", "attn._")
            yield f"blocks.{layer}.{name}", tensor
    yield "unembed.W_U", hf_model.lm_head.weight.T


def norm(name, module):
    return {f"{name}.w": module.weight, f"{name}.b": module.bias}
