"""Chat templates come with models, so from strangers: what they try stays in a sandbox."""

import json

import pytest
import tiny

from surgery import Base, Plan, SurgeryError


def patient(folder, template: str | None):
    """A tiny model, of two layers, whose tokenizer has the template."""
    tiny.model("llama", num_hidden_layers=2).save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return Base.open(str(folder)).operate(Plan.whole(2))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('touch pwned').read() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.getcwd() }}",
        "{{ messages.append(1) }}",
        "{{ '{0.__class__.__base__}'.format(messages) }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{% not a template",
    ],
)
def test_a_template_reaches_nothing(tmp_path, monkeypatch, template):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SurgeryError, match=r"The chat template of .* can't be used"):
        "".join(patient(tmp_path / "x", template).stream("hello", chat=True, max_new_tokens=1))
    assert not (tmp_path / "pwned").exists()


def test_what_is_forbidden_to_look_at_is_not_there(tmp_path):
    made = patient(tmp_path, "<{{ raise_exception.__globals__ }}{{ messages.__class__ }}>")
    assert made._as_chat("hello") == "<>"


def test_what_a_prompt_says_is_no_template(tmp_path):
    made = patient(tmp_path, "{{ messages[0]['content'] }}")
    assert made._as_chat("{{ 7 * 7 }} {% raw %}") == "{{ 7 * 7 }} {% raw %}"


@pytest.mark.parametrize(
    "template",
    [
        "{% for part in messages[0].content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %} A:",
        "{% for part in messages[0].content | selectattr('type', 'equalto', 'text') %}"
        "{{ part['text'] }}{% endfor %} A:",
        "{{ messages[0].content[0]['text'] + ' A:' }}",
    ],
)
def test_a_template_that_takes_only_parts_gets_parts(tmp_path, template):
    """SmolVLM's and LLaVA's leave out a message that is a string, and say nothing."""
    assert patient(tmp_path, template)._as_chat("hello") == "hello A:"


def test_a_template_that_takes_both_gets_the_text(tmp_path):
    """The message is a string wherever the template has it in its output, trimmed or not."""
    made = patient(
        tmp_path,
        "{% set said = messages[0].content %}"
        "{{ said | trim if said is string else 'parts: ' + said[0].text }}",
    )
    assert made._as_chat(" hello\n") == "hello"


@pytest.mark.parametrize("template", ["<>", "{{ messages[0].content.upper() }}"])
def test_a_template_that_changes_the_words_is_followed(tmp_path, template):
    """What it makes of a string is the prompt, if the words are in neither form."""
    expected = "<>" if template == "<>" else "HELLO"
    assert patient(tmp_path, template)._as_chat("hello") == expected


def test_the_template_in_a_file_of_the_processor_is_used(tmp_path):
    """Older vision-language models have it in chat_template.json, which no tokenizer reads."""
    patient(tmp_path, None)
    (tmp_path / "chat_template.json").write_text(
        json.dumps({"chat_template": "<{{ messages[0].content }}>"})
    )
    base = Base.open(str(tmp_path))
    assert base.has_chat_template and base.operate(Plan.whole(2))._as_chat("hello") == "<hello>"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"chat_template": 1}'])
def test_a_damaged_file_of_the_processor_is_no_template(tmp_path, content):
    """The model opens, and says that it has none."""
    patient(tmp_path, None)
    (tmp_path / "chat_template.json").write_text(content)
    assert not Base.open(str(tmp_path)).has_chat_template
