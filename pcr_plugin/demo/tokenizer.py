"""A Qwen2 tokenizer with a small vocabulary of its own."""

from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

END_OF_TURN = "<|im_end|>"
START_OF_TURN = "<|im_start|>"

# ChatML as Qwen writes it, without the default system message.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str], size: int) -> Qwen2Tokenizer:
    """Learn a byte-level BPE vocabulary.

    The class is Qwen2's, because `AutoTokenizer` gives a model of this type Qwen2's
    pre-tokenization whatever the checkpoint says; veRL wants a newline to be one token, which
    starting from all 256 bytes guarantees. Digits are single tokens.

    Args:
        texts: what the merges are learnt from.
        size: entries, special tokens included; at least 259.

    Returns:
        The tokenizer, with ChatML as its chat template.

    Raises:
        ValueError: `size` has no room for the bytes and the special tokens.
    """
    special = [END_OF_TURN, START_OF_TURN, "<|endoftext|>"]
    smallest = len(special) + 256
    if size < smallest:
        raise ValueError(f"vocabulary size {size}: at least {smallest} (all bytes and specials).")
    alphabet = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    seed = Qwen2Tokenizer(vocab=alphabet, merges=[])
    tokenizer = seed.train_new_from_iterator(
        texts, vocab_size=size, new_special_tokens=special, show_progress=False
    )
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
