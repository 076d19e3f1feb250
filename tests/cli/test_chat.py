import json

import pytest

from amauta.base.errors import AmautaError, ConfigError
from amauta.cli import main
from amauta.cli.chat import COMMANDS, Session
from amauta.language_model import LanguageModel
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    texts = ["Rosa vende lana en el mercado.", "El año pasado llovió mucho."] * 4
    spec = Spec(vocabulary=290, context=64, width=32, layers=1, heads=4, init_std=0.3)
    made = LanguageModel(Transformer.create(spec, 0), train_bpe(texts, 290))
    made.folder = tmp_path_factory.mktemp("run") / "model"
    made.save(made.folder)
    return made


@pytest.fixture
def session(model):
    written, notes = [], []
    made = Session(model, "breve", {"max_tokens": 8, "seed": 4}, write=written.append, note=notes.append)
    made.written, made.notes = written, notes
    return made


def test_an_answer_sees_the_dialogue_and_joins_it(session, model):
    session.take("Hola")
    first = [{"role": "system", "content": "breve"}, {"role": "user", "content": "Hola"}]
    expected = model.chat(first, max_tokens=8, seed=4)
    assert "".join(session.written) == expected.text + "\n"
    assert session.messages == [*first, {"role": "assistant", "content": expected.text}]
    session.take("¿Y?")
    second = model.chat([*session.messages[:3], {"role": "user", "content": "¿Y?"}], max_tokens=8, seed=5)
    assert session.messages[-1]["content"] == second.text  # another seed for another turn


def test_a_history_that_no_longer_fits_is_said_once_for_each_change(session):
    for turn in range(4):
        session.take(f"Pregunta {turn}")
    said = [note for note in session.notes if "no longer fits" in note]
    assert said and len(said) == len(set(said))
    assert len(session.messages) == 9  # the dialogue itself is whole


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(session, model):
    def stop_after_two(piece):
        session.written.append(piece)
        if len(session.written) == 2:
            raise KeyboardInterrupt

    session.write = stop_after_two
    session.asked["max_tokens"] = 30
    session.take("Hola")
    spoken = "".join(session.written[:2])
    assert session.messages[-1] == {"role": "assistant", "content": spoken}
    whole = model.chat(session.messages[:2], max_tokens=30, seed=4).text
    assert whole.startswith(spoken) and whole != spoken
    assert any("Stopped" in note for note in session.notes)


def test_an_error_leaves_the_dialogue_as_it_was(session):
    session.take("Hola")
    before = list(session.messages)
    with pytest.raises(AmautaError, match="newest message"):
        session.take("ñandú " * 60)
    assert session.messages == before


def test_the_commands(session, tmp_path):
    session.take("Hola")
    session.take(f"/save {tmp_path / 'talk.jsonl'}")
    assert json.loads((tmp_path / "talk.jsonl").read_text()) == {"messages": session.messages}
    with pytest.raises(ConfigError, match="exists already"):
        session.take(f"/save {tmp_path / 'talk.jsonl'}")
    session.take("/system Responde en español")
    assert [m["content"] for m in session.messages][:2] == ["Responde en español", "Hola"]
    session.take("/settings temperature 0")
    session.take('/settings stop=["."]')
    assert session.model.settings(**session.asked)[0].stop == (".",)
    assert "temperature = 0.0  (argument)" in session.notes[-1] and "top_p = 1.0  (default)" in session.notes[-1]
    assert "truncate = 'left'  (chat)" in session.notes[-1]
    session.take("/settings truncate left")
    assert "truncate = 'left'  (argument)" in session.notes[-1]
    with pytest.raises(ConfigError, match="top_p"):
        session.take("/settings top_p 3")
    assert "top_p" not in session.asked
    session.take("/reset")
    assert [m["role"] for m in session.messages] == ["system"]
    session.take("/system")
    assert session.messages == []
    with pytest.raises(ConfigError, match="'/reset'"):
        session.take("/rest")
    session.take("/quit")
    assert session.ended


def test_help_names_every_command(session):
    session.take("/help")
    assert all(name in session.notes[-1] for name in COMMANDS if name != "/help")


def test_the_terminal_loop(model, capsys, monkeypatch):
    lines = iter(["", "Hola", KeyboardInterrupt, "/oops", "/settings", EOFError])

    def read(prompt):
        line = next(lines)
        if isinstance(line, type):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    code = main(["chat", str(model.folder), "--max-tokens", "5", "--seed", "2"])
    out, err = capsys.readouterr()
    expected = model.chat([{"role": "user", "content": "Hola"}], max_tokens=5, seed=2)
    assert code == 0 and out == expected.text + "\n\n"
    assert "Ctrl-D or /quit leaves" in err and "no command /oops" in err and "max_tokens = 5  (argument)" in err


def test_one_message_without_a_terminal(model, capsys):
    words = ["--message", "Hola", "--system", "breve", "--max-tokens", "6", "--temperature", "0"]
    assert main(["chat", "--model", str(model.folder), *words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    messages = [{"role": "system", "content": "breve"}, {"role": "user", "content": "Hola"}]
    expected = model.chat(messages, max_tokens=6, temperature=0)
    assert record["tokens"] == expected.tokens and record["text"] == expected.text
    assert main(["chat", "--model", str(model.folder), *words]) == 0
    assert capsys.readouterr().out == expected.text + "\n"


def test_the_dialogue_speaks_spanish(session, monkeypatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    session.take("/reset")
    assert session.notes == ["El diálogo está olvidado."]
