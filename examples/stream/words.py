"""A text generator without a model: it puts sentences together, and says so.

`answer` is what an application replaces: anything that yields pieces of text will do, such as the stream of a model's
API.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator

__all__ = ["answer", "text_of"]

PAUSE = float(os.environ.get("STREAM_PAUSE", "0.08"))  # seconds between two words, about as a model writes
OPENING = "You have asked: “{}” I can't know, as I am no model but a few sentences in a file called words.py."
SENTENCES = (
    "Each of these words is a message in a channel that only this answer has.",
    "The channel is a log, and the log does not care who reads it, or when.",
    "This page keeps the cursor of the last word that it has shown, so a reload continues with the next one.",
    "Another device has no cursor yet, begins with the first word, and soon reads along with everybody else.",
    "When the network goes away the writing goes on, and what was written meanwhile arrives at once when it is back.",
    "The server writes for nobody in particular, so nobody who leaves can stop it.",
    "Nothing is said twice, because a place in a log is exact.",
    "Words that were written while the page was away are underlined.",
)
CLOSING = "Reload now, or open the link elsewhere: the text will be the same, word by word."


def text_of(question: str) -> str:
    """Return the answer to a question, which is always the same."""
    order = random.Random(question).sample(SENTENCES, len(SENTENCES))
    return " ".join([OPENING.format(question), *order, CLOSING])


async def answer(question: str) -> AsyncIterator[str]:
    """Yield the answer word by word, each with the space before it."""
    first, *others = text_of(question).split(" ")
    yield first
    for word in others:
        await asyncio.sleep(PAUSE)
        yield f" {word}"
