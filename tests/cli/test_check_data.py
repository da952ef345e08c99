"""`dtx dataset check` says without a server what an inspection would find, and never shows a traceback."""

import json
import os
import subprocess
import sys

import pytest

GOOD = {"messages": [{"role": "user", "content": "hi \x1b[31m"}, {"role": "assistant", "content": "yo"}]}


@pytest.fixture
def check(tmp_path):
    """Runs the command in an empty home; gives exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        environment = {**os.environ, "DTX_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "scratch")}
        (tmp_path / "scratch").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "datatunerx.cli", "dataset", "check", *words],
            capture_output=True, text=True, timeout=100, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        assert list((tmp_path / "scratch").iterdir()) == [], "what it wrote is gone"
        assert not (tmp_path / "home").exists()
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.slow
def test_a_check_names_format_rows_reasons_and_examples(check, tmp_path):
    lines = [
        json.dumps(GOOD),
        "{bad",
        json.dumps({"messages": GOOD["messages"][:1]}),
        *[json.dumps(GOOD)] * 3,
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    code, out, _ = check("a.jsonl")
    path = tmp_path / "a.jsonl"
    assert code == 0
    assert "format   messages\nrows     6 read, 4 kept, 2 dropped\n" in out
    assert f"dropped  1 bad JSON: {path}:2\n" in out and f"dropped  1 no assistant turn: {path}:3\n" in out
    assert f"{path}:3: messages: found user. Fix: add the answer to learn as an assistant turn" in out
    assert [line for line in out.splitlines() if line.startswith("example")] == [
        f"example  {path}:{line}" for line in (1, 4, 5)
    ]
    assert (
        "  user       hi \\x1b[31m\n  assistant  yo\n" in out
    )  # what would colour a terminal is shown as text


@pytest.mark.slow
def test_a_file_that_cannot_be_used_is_told_with_its_fix_and_exit_code_one(check, tmp_path):
    (tmp_path / "a.csv").write_text("ask,say\nq,a\n")
    code, out, err = check("a.csv")
    assert (code, err) == (1, "")
    assert out.startswith(f"cannot be used: {tmp_path / 'a.csv'}: columns ask, say are no known format")
    code, out, _ = check("a.csv", "--map", "prompt=ask", "--map", "completion=say", "-o", "json")
    found = json.loads(out)
    assert (code, found["usable"], found["report"]["format"]) == (0, True, "prompt-completion")
    assert found["preview"][0]["messages"][1] == {"role": "assistant", "content": "a"}


def test_options_that_mean_nothing_are_refused_before_anything_is_read(check):
    assert check("a.csv", "--format", "alpacca")[::2] == (
        2, "error: --format alpacca: unknown; did you mean alpaca?\n",
    )  # fmt: skip
    assert "write it as PART=COLUMN" in check("a.csv", "--map", "prompt")[2]
    code, _, err = check(os.fsdecode(b"caf\xe9.jsonl"))
    assert (code, err) == (2, "error: 'caf\\udce9.jsonl': a name that is not UTF-8; give the file another\n")
