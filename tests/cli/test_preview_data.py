"""A preview shows what training would see, on a terminal or as a page, and lets no row's text act."""

import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from datatunerx.cli.errors import CommandError
from datatunerx.cli.preview_data import lines, preview_dataset
from datatunerx.runs.preview import to_html

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31m \u202e & \"quoted\" 'too'"
FACTS = {
    "report": {
        "format": f"messages{EVIL}", "read": 5, "kept": 3, "dropped": 2, "truncated": 1, "cutTokens": 9,
        "reasons": [{"reason": "bad JSON", "count": 2, "where": [f"{EVIL}.jsonl:4"]}], "splits": {"train": 3},
        "tokens": {
            "rows": 3, "p50": 8, "p95": 16, "max": 20, "total": 40, "trained": 10,
            "turns": 3, "turnsEnded": 2,
        },
        "histogram": [{"upTo": 8, "rows": 2}, {"upTo": 16, "rows": 1}],
        "languages": [{"name": "zh", "rows": 2}, {"name": "en", "rows": 1}],
        "overlap": {
            "duplicates": 1, "heldOut": 2, "leaked": 1, "near": 1, "compared": 2,
            "where": [f"{EVIL}:1 ~ b.jsonl:2"],
        },
    },
    "preview": [
        {"row": f"{EVIL}:1", "text": f"ask {EVIL} answer{EVIL}", "trained": [[5 + len(EVIL), 999]]}
    ],
}  # fmt: skip


class Page(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = self.marked = ""
        self._in_mark = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_mark = tag == "mark" or self._in_mark

    def handle_endtag(self, tag):
        self._in_mark = self._in_mark and tag != "mark"

    def handle_data(self, data):
        self.text += data
        self.marked += data if self._in_mark else ""


def test_no_text_of_a_row_becomes_part_of_the_page():
    page = Page(to_html(FACTS, EVIL))
    assert not page.tags & {"script", "img", "a", "link", "iframe", "form"}
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "class", "max", "value"}
    assert page.text.count("<script>alert(1)</script>") >= 6
    assert "\x1b" not in page.text and "\u202e" not in page.text and "\\x1b[31m" in page.text
    assert page.marked.startswith("answer</pre><script>")
    assert "default-src 'none'" in to_html(FACTS, "t") and "http" not in to_html(FACTS, "t").replace(
        "http-equiv", ""
    )


def test_a_terminal_shows_colours_or_marks_and_is_never_driven_by_a_row():
    for colours in (True, False):
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=colours, color_system="standard" if colours else None, width=400
        )
        for line in lines(FACTS, colours=colours):
            console.print(line, soft_wrap=True)
        said = out.getvalue()
        assert "\x1b[31m" not in said and "\\x1b[31m" in said and "\u202e" not in said
        assert ("\x1b[32manswer" in said) == colours and ("⟦answer" in said) != colours
    assert "2 of 3 trained ones end in a trained token" in said
    assert "of 2 held-out rows 1 are in train, 1 nearly (of 2 compared)" in said
    assert "zh 67%, en 33% (of 3 rows looked at)" in said and "1 cut, 0 split, 9 tokens lost" in said


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tokenizer of bytes, without a template."""
    folder = tmp_path_factory.mktemp("model")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(sorted(alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token) for token in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return folder


@pytest.mark.slow
async def test_what_is_neither_a_file_nor_a_dataset_is_said_to_be_neither(api):
    with pytest.raises(CommandError, match="nope.jsonl: neither a file here nor a Dataset in namespace"):
        await preview_dataset(api, "nope.jsonl", "default", None, None)


def test_a_file_is_previewed_with_a_models_tokens_before_it_is_registered(model, tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"你好 <|im_end|> {n}"},
                {"role": "assistant", "content": "很好"},
            ]
        }
        for n in range(5)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def preview(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "datatunerx.cli", "dataset", "preview", "a.jsonl", *words],
            capture_output=True, text=True, timeout=100, cwd=tmp_path,
            env={**os.environ, "DTX_HOME": str(tmp_path / "home")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = preview("--llm", str(model))
    assert "<|im_start|>user\n你好 <|im_end|> 0<|im_end|>\n<|im_start|>assistant\n⟦很好<|im_end|>⟧" in said
    assert said.count("⟦") == 3 and "5 of 5 trained ones end in a trained token" in said
    assert "⟦很好</s>" not in said and "user       你好 <|im_end|> 0" in preview()
    preview("--llm", str(model), "--html", "a.html")
    page = Page((tmp_path / "a.html").read_text())
    assert page.marked == "很好<|im_end|>" * 3
