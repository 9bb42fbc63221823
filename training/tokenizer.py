"""A small byte-pair tokenizer made from the captions: every word of the grammar is one token, any text can be read."""

import json
from random import Random

import numpy as np
from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

from training.captions import FILLERS, caption
from training.scenes import sample_spec

MAX_LENGTH = 77  # as in every CLIP text encoder
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(captions: int = 30_000) -> CLIPTokenizer:
    """Train it; the same in every process."""
    random = Random(0)
    texts = [*FILLERS, *(caption(sample_spec(random), random) for _ in range(captions))]
    words = {word for text in texts for word in text.lower().split()}
    learner = CLIPTokenizer().backend_tokenizer  # for its normalizer and its way to split words
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        # Every byte at the end of a word is listed too: left to the trainer, their order differs from run to run.
        special_tokens=[START, END, *letters, *(letter + "</w>" for letter in letters)],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(sorted(words), trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=MAX_LENGTH)


def encode(tokenizer: CLIPTokenizer, captions: list[str]) -> np.ndarray:
    """Captions as the pipeline pads them: (B, 77) int16."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_LENGTH)
    return np.asarray(tokens.input_ids, np.int16)
