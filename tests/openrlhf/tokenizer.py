"""A tokenizer for the small models, which OpenRLHF insists on: a number for every token."""

from pathlib import Path

TOKENS = 53


def save_tokenizer(folder: Path) -> None:
    """Write it.

    Args:
        folder: of the checkpoint.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(n): n for n in range(TOKENS)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "1", "pad_token": "0"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
