"""Who answers: a language model here, or one behind an OpenAI-compatible server.

A writer takes requests and the way to draw, and gives what was written after each request's ``begun``.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from amauta.base.errors import ConfigError, ModelError
from amauta.tokenize.chat import render
from amauta.train.self_instruct.wording import Request

TRIES, SECONDS = 6, 600.0  # of one request to a server, and until an answer must be there
BUSY = {408, 409, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Draw:
    """How an answer is drawn; request i of several has ``seed + i``. Temperature 0 is greedy, ``top_p`` then idle."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """As arguments; what has no effect is left out."""
        found = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.temperature and self.top_p < 1:
            found["top_p"] = self.top_p
        return found | ({"presence_penalty": self.presence_penalty} if self.presence_penalty else {})


@dataclass(frozen=True)
class Written:
    """An answer after the request's ``begun``; ``whole``: it came to its own end and was not cut off."""

    text: str
    whole: bool


Writer = Callable[[Sequence[Request], Draw], list[Written]]


def local(model: Any, *, chat: bool) -> Writer:
    """A language model in this process. In a chat the request is the user's turn, and the answer has begun already.

    ModelError where not one of the requests could be answered (they do not fit the context, say).
    """

    def write(requests: Sequence[Request], draw: Draw) -> list[Written]:
        prompts: list[Any] = []
        for request in requests:
            if chat:
                asked = render(model.tokenizer, [{"role": "user", "content": request.text}], reply=True).ids
                prompts.append([*asked, *model.tokenizer.encode(request.begun)])
            else:
                prompts.append("\n".join(filter(None, (request.text, request.begun))))
        stops = requests[0].stop
        made = model.generate(prompts, stop=stops, seed=draw.seed, batch=len(prompts), **draw.settings())
        failures = [one.failure for one in made if one.failure is not None]
        if len(failures) == len(made):
            raise failures[0]
        return [Written(one.text, one.finish in ("stop", "stop-string")) for one in made]

    return write


def served(
    url: str, model: str, *, chat: bool, key: str = "", at_once: int = 5, wait: Callable[[float], None] = time.sleep
) -> Writer:
    """A model behind ``url`` (``…/v1``), by its chat or its plain completions; ``key`` names the environment variable
    that holds the server's key. In a chat the model writes ``begun`` itself, as the demonstrations do. A busy server is
    asked again, after 1, 2, 4 … seconds.

    ConfigError for an address that is none; ModelError for what the server refuses, with its words.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError("self_instruct.bad-url", url=url)
    address = f"{url.rstrip('/')}/{'chat/completions' if chat else 'completions'}"
    secret = os.environ.get(key, "") if key else ""

    def one(request: Request, draw: Draw, seed: int) -> Written:
        asked: dict[str, Any] = {"model": model, "stop": list(request.stop), "seed": seed, **draw.settings()}
        if chat:
            asked["messages"] = [{"role": "user", "content": request.text}]
        else:
            asked["prompt"] = "\n".join(filter(None, (request.text, request.begun)))
        found = _asked(address, asked, secret, wait)
        try:
            choice = found["choices"][0]
            text = (choice["message"]["content"] if chat else choice["text"]) or ""
            finish = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ModelError("self_instruct.bad-answer", url=address, answer=json.dumps(found)[:200]) from None
        text = text.encode("utf-8", errors="replace").decode()  # half a surrogate pair cannot be kept
        return Written(_after(text, request.begun) if chat else text, finish == "stop")

    def write(requests: Sequence[Request], draw: Draw) -> list[Written]:
        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(lambda i: one(requests[i], draw, draw.seed + i), range(len(requests))))

    return write


def _after(text: str, begun: str) -> str:
    """What follows ``begun``, before which a model in a dialogue may say words of its own; all where it left it out."""
    return text.partition(begun)[2] if begun and begun in text else text


def _asked(address: str, body: dict[str, Any], secret: str, wait: Callable[[float], None]) -> Any:
    """The server's answer to a POST of JSON."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    reason = ""
    for number in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}: {error.read(300).decode(errors='replace')}"
            if error.code not in BUSY:
                raise ModelError("self_instruct.refused", url=address, reason=reason) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error))
        except ValueError as error:
            raise ModelError("self_instruct.bad-answer", url=address, answer=error) from None
        if number < TRIES - 1:
            wait(2.0**number)
    raise ModelError("self_instruct.not-reached", url=address, tries=TRIES, reason=reason)
