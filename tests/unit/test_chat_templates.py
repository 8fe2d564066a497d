"""Chat templates come with models, so from strangers: what they try stays in a sandbox."""

import pytest
import tiny

from surgery import Base, Plan, SurgeryError


def patient(folder, template: str):
    """A tiny model whose tokenizer has the template."""
    tiny.model("llama").save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return Base.open(str(folder)).operate(Plan.whole(6))


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
