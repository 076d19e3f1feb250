"""Small tokenizers of every kind, trained on the spot, and published chat templates, in the form that folders have."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.tokenize.conftest import texts

TEXTS = texts(3, 400) + ["<|user|>\n[INST] system assistant model user <<SYS>> </s>", "¡Hola! naïve café 東京 🦙"]
CHAT = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]  # fmt: skip


def _ends(inner: tokenizers.Tokenizer, single: str, pair: str) -> tokenizers.Tokenizer:
    named = {word.split(":")[0] for word in f"{single} {pair}".split() if not word.startswith("$")}
    inner.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, inner.token_to_id(name)) for name in named]
    )
    return inner


def byte_level(special: list[str] = CHAT, *, first: bool = False) -> tokenizers.Tokenizer:
    """As GPT-2's or, with a first token, Llama 3's."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))  # fmt: skip
    return _ends(inner, "<s> $A", "<s> $A <s> $B:1") if first else inner


def roberta() -> tokenizers.Tokenizer:
    inner = byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    inner.post_processor = processors.RobertaProcessing(
        ("</s>", inner.token_to_id("</s>")), ("<s>", inner.token_to_id("<s>"))
    )
    return inner


def llama(special: list[str] = CHAT) -> tokenizers.Tokenizer:
    """SentencePiece-style BPE with byte fallback and a space before every stretch of text."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.train_from_iterator(TEXTS[:-1], trainers.BpeTrainer(
        vocab_size=700, special_tokens=special + fallback, limit_alphabet=60, show_progress=False))  # fmt: skip
    whole = json.loads(inner.to_str())
    whole["added_tokens"] = [one for one in whole["added_tokens"] if one["content"] in special]
    inner = tokenizers.Tokenizer.from_str(json.dumps(whole))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _ends(inner, "<s> $A", "<s> $A <s> $B:1")


def wordpiece() -> tokenizers.Tokenizer:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False)
    )
    return _ends(inner, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


def unigram() -> tokenizers.Tokenizer:
    """As T5's: the library's Unigram finds the names of special tokens in any text."""
    names = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=300, special_tokens=names, unk_token="<unk>", show_progress=False)
    )
    return _ends(inner, "$A </s>", "$A </s> $B </s>")


def word_ends() -> tokenizers.Tokenizer:
    """As openai-gpt's."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.BPEDecoder(suffix="</w>")
    inner.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False))  # fmt: skip
    return inner


NAMES: dict[str, dict[str, Any]] = {
    "byte-level": {"eos_token": "</s>", "bos_token": "<s>"},
    "byte-level with a first token": {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<pad>"},
    "roberta": {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
                "pad_token": "<pad>", "mask_token": {"content": "<mask>", "lstrip": True, "__type": "AddedToken"},
                "unk_token": "<unk>"},
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "wordpiece": {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
                  "mask_token": "[MASK]"},
    "unigram": {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    "word ends": {"unk_token": "<unk>"},
}  # fmt: skip
MADE = {
    "byte-level": byte_level,
    "byte-level with a first token": lambda: byte_level(first=True),
    "roberta": roberta,
    "llama": llama,
    "wordpiece": wordpiece,
    "unigram": unigram,
    "word ends": word_ends,
}


def write(folder: Path, inner: tokenizers.Tokenizer, config: dict[str, Any], template: str | None = None) -> Path:
    """A folder as the hub has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(inner.to_str(), encoding="utf-8")
    whole = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    if template is not None:
        whole["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(whole), encoding="utf-8")
    return folder


TEMPLATES = {
    "chatml": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>\
system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + \
message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{% endif %}""",
    "llama-2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message =\
 messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception(\
'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and \
system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' \
+ content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token \
}}{% endif %}{% endfor %}""",
    "llama-3": """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if \
loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if \
add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') \
}}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ \
raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if \
(message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ \
'<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if \
add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "mistral": """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == \
0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if \
message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' \
%}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}\
{% endif %}{% endfor %}""",
    "zephyr": """{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + \
message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + \
eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n\
{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}""",
}
