"""The chat templates of other people's models: Jinja texts, rendered as ``transformers`` renders them.

Templates are programs that come with a model: they run in Jinja's sandbox, cannot change what they are given, and see
plain data only.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from amauta.base.errors import DataError, ModelError
from amauta.tokenize.marks import BEGIN, STOP, mark

_MARKED = "marked_generation"  # the variable that asks for marks round what the assistant wrote
_REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A model's template, or several by name: "default", and "tool_use" which holds where tools are given.

    ``variables``: what it may name besides the messages (``bos_token`` …). Raises ModelError where a template is not
    Jinja.
    """

    def __init__(self, source: str | Mapping[str, str], variables: Mapping[str, Any], *, where: str) -> None:
        self.source = source if isinstance(source, str) else dict(source)
        self.variables = dict(variables)
        self.where = where
        self._named = {"default": source} if isinstance(source, str) else dict(source)
        if not self._named:
            raise ModelError("tokenize.bad-template", where=where, reason="{}")
        try:
            self._compiled  # noqa: B018 - a fault is found on loading
        except TemplateSyntaxError as error:
            raise ModelError("tokenize.bad-template", where=where, reason=f"{error} ({error.lineno})") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.source, self.variables, self.where)

    def marks_answers(self, tools: Sequence[Any] | None = None) -> bool:
        """Whether the template says itself, by ``{% generation %}``, what the assistant writes."""
        return any(name == "_wrap" for name in self._wraps[self._name(tools)])

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        reply: bool = False,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        now: datetime | None = None,
        marked: bool = False,
        where: str = "messages",
    ) -> str:
        """The text of ``messages``. ``marked`` puts the marks BEGIN and STOP round each ``{% generation %}``.

        Raises DataError with the template's words where it refuses the dialogue, or cannot work on it.
        """
        plain = [_aliased({key: value for key, value in one.items() if value is not None}) for one in messages]
        moment = now or datetime.now()
        given = {"tools": tools, "documents": None, **self.variables, **(variables or {})}
        given |= {"messages": plain, "add_generation_prompt": reply, "strftime_now": moment.strftime, _MARKED: marked}
        try:
            return self._compiled[self._name(tools)].render(given)
        except TemplateError as error:
            raise DataError("tokenize.template-refused", where=where, template=self.where, reason=error) from None
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError("tokenize.template-refused", where=where, template=self.where, reason=reason) from None

    def _name(self, tools: Sequence[Any] | None) -> str:
        if tools is not None and "tool_use" in self._named:
            return "tool_use"
        if "default" in self._named:
            return "default"
        raise ModelError("tokenize.no-default-template", where=self.where, names=", ".join(self._named))

    @cached_property
    def _environment(self) -> ImmutableSandboxedEnvironment:
        made = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        made.filters["tojson"] = _tojson  # Jinja's own writes < and > as for HTML
        made.globals["raise_exception"] = _raise
        return made

    @cached_property
    def _compiled(self) -> dict[str, Template]:
        return {name: self._environment.from_string(source) for name, source in self._named.items()}

    @cached_property
    def _wraps(self) -> dict[str, list[str]]:
        trees = {name: self._environment.parse(source) for name, source in self._named.items()}
        return {name: [one.name for one in tree.find_all(nodes.ExtensionAttribute)] for name, tree in trees.items()}


class _Generation(Extension):
    """``{% generation %} … {% endgeneration %}``: what the assistant writes."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_wrap", [nodes.Name(_MARKED, "load")])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _wrap(self, marked: bool, caller: Macro) -> str:
        return mark(BEGIN) + caller() + mark(STOP) if marked else caller()


def _aliased(message: dict[str, Any]) -> dict[str, Any]:
    """A message's reasoning under every name that templates know it by, as ``transformers`` gives it."""
    found = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _again(source: Any, variables: dict[str, Any], where: str) -> ChatTemplate:
    return ChatTemplate(source, variables, where=where)
