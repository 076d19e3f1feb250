"""The Jinja chat template that makes other tools render a dialogue as ``chat.render`` does.

Both are made from the tables of ``special.py``. There is one difference, and the template says it aloud: the other
tools parse the rendered text for special tokens, so a message that contains the name of one cannot be rendered alike.
The template refuses it; ``chat.render`` encodes it as the plain text that it is.
"""

import json
from collections.abc import Iterable

from amauta.tokenize.special import BEGIN, FOLLOWS, ROLES, TURN

# Tables are filled in for @NAMES@; every tag trims the whitespace round it, so that only the {{ }} blocks print.
_TEMPLATE = """\
{%- set special = @SPECIAL@ -%}
{%- set opens = @OPENS@ -%}
{%- set follows = @FOLLOWS@ -%}
{%- set before = namespace(role="") -%}
{%- if not messages -%}
  {{- raise_exception("A dialogue needs at least one message.") -}}
{%- endif -%}
{{- @BEGIN@ -}}
{%- for message in messages -%}
  {%- set role = message["role"] -%}
  {%- set content = message["content"] -%}
  {%- if role not in opens -%}
    {{- raise_exception("Unknown role '" ~ role ~ "'. Allowed: " ~ opens | join(", ")) -}}
  {%- endif -%}
  {%- if role not in follows[before.role] -%}
    {{- raise_exception("A '" ~ role ~ "' message cannot stand after '" ~ before.role ~ "'.") -}}
  {%- endif -%}
  {%- if content is not string -%}
    {{- raise_exception("The content of a message must be a string.") -}}
  {%- endif -%}
  {%- if message["tool_calls"] -%}
    {{- raise_exception("Tool calls must be written into the content of the message.") -}}
  {%- endif -%}
  {%- for name in special -%}
    {%- if name in content -%}
      {{- raise_exception("A message contains '" ~ name ~ "', the name of a special token.") -}}
    {%- endif -%}
  {%- endfor -%}
  {{- opens[role] -}}
  {%- if role == "assistant" -%}
    {%- generation -%}{{- content ~ @TURN@ -}}{%- endgeneration -%}
  {%- else -%}
    {{- content ~ @TURN@ -}}
  {%- endif -%}
  {%- set before.role = role -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {%- if "assistant" not in follows[before.role] -%}
    {{- raise_exception("An answer cannot follow '" ~ before.role ~ "'.") -}}
  {%- endif -%}
  {{- opens["assistant"] -}}
{%- endif -%}
"""


def chat_template(special: Iterable[str]) -> str:
    """The Jinja text for a tokenizer whose special tokens are ``special`` (names)."""
    blanks = {
        "@SPECIAL@": sorted(special),
        "@OPENS@": ROLES,
        "@FOLLOWS@": {role: list(after) for role, after in FOLLOWS.items()},
        "@BEGIN@": BEGIN,
        "@TURN@": TURN,
    }
    text = _TEMPLATE
    for blank, value in blanks.items():
        text = text.replace(blank, json.dumps(value))  # a JSON string, list or object is a Jinja literal too
    return text
