"""A chat template comes from anywhere: whatever it does, it does to its own process only."""

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from datatunerx.data import ChatTemplate, TemplateError
from datatunerx.data import render as render_module
from datatunerx.data.render import Asked, answers, render

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
CHAT = TURNS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
LOOP = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% if a < 0 %}x{% endif %}{% endfor %}{% endfor %}"
)
BOMBS = {
    "a loop without end": (LOOP, "takes more than 0.5 s"),
    "one call without end": ("{{ '%*d' | format(999999999, 1) | length }}", "memory|refuses the turns"),
    "text without end": ("{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}", "writes more than"),
    "memory": ("{{ ('x' * 999999999) | length }}", "needs more than 512 MiB"),
    "a list that doubles": (
        "{% set ns = namespace(a='xx') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "needs more than 512 MiB",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refuses the turns"),
    "a deep expression": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "not valid Jinja|ended the process"),
}


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]


@pytest.fixture(autouse=True)
def a_child_of_its_own(monkeypatch):
    """That has half a second for a row, so that tests need not wait longer."""
    monkeypatch.setattr(render_module.sandbox, "ROW_SECONDS", 0.5)
    render_module._child().close()
    yield
    render_module._child().close()


def child() -> psutil.Process:
    render("x", [], {})
    process = render_module._child()._process
    assert process is not None
    return psutil.Process(process.pid)


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_bomb_is_an_error_and_the_next_template_is_written(name, tokenizer_dir):
    template, reason = BOMBS[name]
    before = psutil.Process().memory_info().rss

    with pytest.raises(TemplateError, match=reason) as caught:
        ChatTemplate.load(tokenizer_dir, template)

    assert caught.value.fix
    assert psutil.Process().memory_info().rss - before < 100 << 20
    assert render("{{ messages[0].content }}", said("good"), {}) == "good"


def test_a_row_that_sets_a_bomb_off_is_named_and_the_others_are_written():
    armed = "{% if 'boom' in messages[0].content %}" + LOOP + "{% endif %}" + CHAT
    made = answers(
        armed, {}, [Asked(said(text), locate=True) for text in ("a", "boom", "c")], (), ["<|im_end|>"]
    )
    assert isinstance(made[1], TemplateError) and "takes more than 0.5 s" in made[1].message
    assert ["a" in made[0]["text"], "c" in made[2]["text"]] == [True, True]  # type: ignore[index]


def test_a_template_that_kills_its_process_again_and_again_is_given_up():
    with pytest.raises(TemplateError, match="takes more than"):
        answers(LOOP, {}, [Asked(said("a"))] * 100)


def test_the_child_knows_nothing_of_us_and_loads_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    render_module._child().close()
    process = child()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert process.environ() == {} and process.cwd() == "/"
    assert not any(name in maps for name in ("numpy", "tokenizers", "pydantic", "torch"))
    assert process.memory_info().rss < 60 << 20


def test_one_child_serves_every_template_and_a_fork_has_its_own():
    first = child().pid
    assert [render(f"{{{{ {n} }}}}", [], {}) for n in range(3)] == ["0", "1", "2"] and child().pid == first
    reading, writing = os.pipe()
    if (fork := os.fork()) == 0:
        other = child()
        os.write(writing, str(other.pid).encode())
        other.kill()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert int(answer.read()) != first
    os.waitpid(fork, 0)
    assert child().pid == first


def test_a_child_that_was_killed_is_started_again():
    process = child()
    process.kill()
    process.wait(5)
    assert render("x", [], {}) == "x" and child().pid != process.pid


def test_many_turns_and_long_texts_are_no_bombs():
    messages = [turn for n in range(60) for turn in said(f"{n} " + "word " * 2000)]
    (made,) = answers(CHAT, {}, [Asked(messages, locate=True)], ["<|im_end|>"], ["<|im_end|>"])
    assert isinstance(made, dict) and len(made["spans"]) == 60


def test_half_a_surrogate_pair_and_a_time_reach_the_template():
    import datetime

    messages = [{"role": "user", "content": "a\ud800", "when": datetime.date(2026, 1, 2)}]
    assert render("{{ messages[0].content }}{{ messages[0].when }}", messages, {}) == "a\ud8002026-01-02"
