"""A language model that says what a script tells it, character by character, and nothing else.

    model = Scripted({"Q: 2+2\nA:": " 4", "again": [" 4", (" 5", -1.5)]})

A text is what the prompt is answered with every time; a list gives one completion after another, each a text or (text,
log-prob in nats, shared out evenly over its characters; -1 a character when left out). A prompt that is not in the
script, or is asked once more than its list has completions, is a failure. A function (prompt, how often it was asked
before) -> completion may stand in place of the whole script.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Completion = str | tuple[str, float]
Script = Mapping[str, Completion | Sequence[Completion]] | Callable[[str, int], Completion]
BEGIN, TURN, ROLES = 0x110000, 0x110001, {"system": 0x110002, "user": 0x110003, "assistant": 0x110004}
NAMES = {BEGIN: "", TURN: "<turn>", **{id: f"<{role}>" for role, id in ROLES.items()}}


@dataclass(frozen=True)
class Said:
    """What methods may know of a ``Generation``."""

    text: str
    tokens: list[int]
    logprobs: list[float]
    sampled_logprobs: list[float]
    finish: str
    prompt_tokens: int
    settings: dict[str, Any]


class Characters:
    """A token is a character. Dialogues (``chat=True``) are spelt ``<user>text<turn><assistant>``."""

    begin, turn, roles, end = BEGIN, TURN, ROLES, None

    def __init__(self, chat: bool = False) -> None:
        self.has_chat = chat

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def encode_many(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [NAMES[id] if id in NAMES else chr(id) for id in ids]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        return "".join(self.pieces(ids))

    def token_bytes(self, id: int) -> bytes:
        return b"" if id in NAMES else chr(id).encode()


class Scripted:
    """``asked``: every (prompt, settings) that was sent, in order. ``generated``, ``read`` and ``calls`` count
    characters and prompts, as an outcome must tell them."""

    kind, name = "decoder", "scripted"

    def __init__(self, script: Script, *, context: int | None = 100_000, chat: bool = False) -> None:
        self.script, self.context, self.tokenizer = script, context, Characters(chat)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.generated = self.read = self.calls = 0
        self._times: Counter[str] = Counter()

    def generate(self, prompts: Any, *, batch: int = 32, on_result: Any = None, **settings: Any) -> list[Said]:
        made = [self._one(prompt, settings) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        for one in made:
            if on_result is not None:
                on_result(one)
        return made

    @property
    def prompts(self) -> list[str]:
        """The prompts that were sent, in order."""
        return [prompt for prompt, _ in self.asked]

    def _one(self, prompt: str | Sequence[int], settings: dict[str, Any]) -> Said:
        text = prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)
        said, logprob = self._said(text)
        for stop in settings.get("stop") or ():
            said = said.partition(stop)[0]
        cut = said[: settings.get("max_tokens") or len(said)]
        self.asked.append((text, dict(settings)))
        self.calls, self.read, self.generated = self.calls + 1, self.read + len(text), self.generated + len(cut)
        logprobs = [(-len(cut) if logprob is None else logprob) / max(1, len(cut))] * len(cut)
        finish = "stop" if cut == said else "length"
        return Said(cut, self.tokenizer.encode(cut), logprobs, list(logprobs), finish, len(text), dict(settings))

    def _said(self, prompt: str) -> tuple[str, float | None]:
        times = self._times[prompt]
        self._times[prompt] += 1
        if callable(self.script):
            found: Any = self.script(prompt, times)
        else:
            assert prompt in self.script, f"no completion of {prompt!r}; the script knows {list(self.script)}"
            found = self.script[prompt]
            if isinstance(found, list):
                assert times < len(found), f"{prompt!r} is asked {times + 1} times"
                found = found[times]
        return found if isinstance(found, tuple) else (found, None)
