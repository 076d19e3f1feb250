"""Talk with a model in the terminal."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from amauta.base.errors import AmautaError, ConfigError
from amauta.base.messages import say
from amauta.base.names import did_you_mean
from amauta.cli._door import command
from amauta.config import Positional
from amauta.decode.settings import Asked, given
from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL

if TYPE_CHECKING:
    from amauta.language_model import LanguageModel


@dataclass
class Chat:
    """Talk with a model in the terminal."""

    model: Annotated[str, Positional(), Doc(ANY_MODEL)]
    message: Annotated[str | None, Doc("answer this one message and end")] = None
    system: Annotated[str | None, Doc("system message, read before the dialogue")] = None
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto is f32")] = "auto"
    sampling: Annotated[Asked, Doc("how tokens are drawn")] = field(default_factory=Asked)


@command(Chat, show=lambda result: str(result["text"]))
def chat(settings: Chat) -> dict[str, Any] | None:
    """Talk with a model in the terminal.

    In the dialogue /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves. A history that no longer fits the
    model's context loses its oldest exchanges, and that is said.

    Examples:
      amauta chat runs/demo
      amauta chat --model runs/demo/model --temperature 0 --system "Answer in Spanish."
      amauta chat smollm2 --message "Where does Rosa live?" --json
    """
    from amauta.language_model import load

    model = load(settings.model, device=settings.device, dtype=settings.dtype)
    session = Session(model, settings.system, given(settings.sampling))
    if settings.message is None:
        _talk(session)
        return None
    answer = model.chat([*session.messages, {"role": "user", "content": settings.message}], **session.asked)
    return answer.record()


def _talk(session: "Session") -> None:
    """Lines from stdin until Ctrl-D or /quit; an error is said, and the dialogue goes on."""
    try:
        import_module("readline")  # gives input() line editing and history
    except ImportError:  # Windows
        pass
    session.note(say("chat.welcome", model=session.model.name))
    while not session.ended:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            session.note(say("chat.how-to-leave"))
            continue
        if not line:
            continue
        try:
            session.take(line)
        except AmautaError as error:
            session.note(str(error))


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Session:
    """A dialogue with a model: its messages so far, its settings, and the commands that change them.

    ``write`` takes the pieces of the answers, ``note`` whole lines about the dialogue.
    """

    def __init__(
        self,
        model: "LanguageModel",
        system: str | None,
        asked: dict[str, Any],
        *,
        write: Callable[[str], object] = lambda piece: print(piece, end="", flush=True),
        note: Callable[[str], object] = _on_stderr,
    ) -> None:
        self.model, self.write, self.note = model, write, note
        self.asked = {**CHAT_DEFAULTS, **asked}
        self._own = CHAT_DEFAULTS.keys() - asked.keys()  # set by nobody but this command
        self.messages: list[dict[str, str]] = []
        self.ended = False
        self._dropped = 0  # messages that the newest answer did not see
        self._turns = 0
        if system is not None:
            self.system(system)
        model.settings(**self.asked)  # a bad setting is named before the first question

    def take(self, line: str) -> None:
        """A line of the user: a command or a message. Raises AmautaError; the dialogue is then as it was before."""
        if not line.startswith("/"):
            self._answer(line)
            return
        name, _, rest = line.partition(" ")
        if name not in COMMANDS:
            raise ConfigError("chat.unknown-command", name=name, hint=did_you_mean(name, COMMANDS))
        COMMANDS[name](self, rest.strip())

    def _answer(self, text: str) -> None:
        """One turn. What was written before a Ctrl-C stays in the history: the user has read it."""
        asked = self.model.settings(**self.asked)[0]
        messages = [*self.messages, {"role": "user", "content": text}]
        answer = self.model.stream(messages, **{**self.asked, "seed": asked.seed + self._turns})
        try:
            for piece in answer:
                self.write(piece)
        except KeyboardInterrupt:
            answer.close()
        self.write("\n")
        assert answer.result is not None
        self.messages = [*messages, {"role": "assistant", "content": answer.result.text}]
        self._turns += 1
        if answer.result.dropped_messages != self._dropped:
            self._dropped = answer.result.dropped_messages
            self.note(say("chat.dropped", count=self._dropped))
        if answer.result.finish == "cancelled":
            self.note(say("chat.stopped"))
        elif answer.result.finish == "length":
            self.note(say("chat.length", tokens=asked.max_tokens))
        elif answer.result.finish == "context":
            self.note(say("chat.context", context=self.model.context))

    def help(self, rest: str) -> None:
        self.note(say("chat.help"))

    def reset(self, rest: str) -> None:
        self.messages = [message for message in self.messages if message["role"] == "system"]
        self._dropped = self._turns = 0
        self.note(say("chat.reset"))

    def system(self, text: str) -> None:
        """A new system message, for the history that stands too; none when ``text`` is empty."""
        dialogue = [message for message in self.messages if message["role"] != "system"]
        self.messages = [{"role": "system", "content": text}, *dialogue] if text else dialogue

    def save(self, name: str) -> None:
        """The whole dialogue as a record, which training reads; never over an older file."""
        import json

        from amauta.runs import write_atomically

        if not name:
            raise ConfigError("chat.save-where")
        path = Path(name).expanduser()
        if path.exists():
            raise ConfigError("chat.file-exists", path=path)
        write_atomically(path, json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        self.note(say("chat.saved", path=path, count=len(self.messages)))

    def settings(self, rest: str) -> None:
        """Show the settings that hold, or change one: ``/settings temperature 0.5``."""
        if rest:
            name, _, value = rest.replace("=", " ", 1).partition(" ")
            changed = {**self.asked, name: _value(value.strip())}
            self.model.settings(**changed)  # raises before anything is changed
            self.asked = changed
            self._own -= {name}
        values, sources = self.model.settings(**self.asked)
        sources |= dict.fromkeys(self._own, "chat")
        self.note("\n".join(f"{name} = {value!r}  ({sources[name]})" for name, value in asdict(values).items()))

    def quit(self, rest: str) -> None:
        self.ended = True


CHAT_DEFAULTS = {"truncate": "left"}  # a dialogue outgrows every context: it loses its beginning, and says so

COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "/help": Session.help,
    "/reset": Session.reset,
    "/system": Session.system,
    "/save": Session.save,
    "/settings": Session.settings,
    "/quit": Session.quit,
}


def _value(text: str) -> Any:
    """A number, list or truth value as JSON writes it, else the text."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text
