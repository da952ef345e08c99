"""The data plugins that come with datatunerx, on real files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from datatunerx.data import DataError
from datatunerx.data.plugins import data_plugins, documents, question_sheet, scrub
from datatunerx.plugins import DATA_PLUGINS, Call, find, parameter_problem, schema_problem


def made(plugin, *files: Path, **parameters):
    left: list[tuple[str, str]] = []
    call = Call("train", files, parameters, leave_out=lambda reason, place: left.append((reason, place)))
    assert parameter_problem(plugin.PLUGIN.parameters, parameters) is None
    return list(plugin.make(call)), left


def pdf(path: Path, text: str, password: str = "") -> Path:
    writer = PdfWriter()
    page = writer.add_blank_page(300, 300)
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    fonts = DictionaryObject(
        {NameObject("/F1"): DictionaryObject({NameObject(k): NameObject(v) for k, v in font.items()})}
    )
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    content = DecodedStreamObject()
    content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
    page[NameObject("/Contents")] = writer._add_object(content)
    if password:
        writer.encrypt(password)
    writer.write(path)
    writer.close()
    return path


def test_each_is_found_by_its_name_and_has_a_schema():
    for name, plugin in data_plugins().items():
        assert find(DATA_PLUGINS, name).plugin == plugin and plugin.summary
        assert schema_problem(plugin.parameters) is None
        assert "nonsense" in (parameter_problem(plugin.parameters, {"nonsense": 1}) or "")


def test_a_folder_of_documents_becomes_text_and_what_has_none_is_counted(tmp_path):
    (tmp_path / "a.md").write_text("---\ntitle: x\n---\n# Returns\n\nWithin thirty days, in the box.\n")
    page = "<nav>Menu</nav><h1>Shipping</h1><p>To thirty countries.</p><script>track()</script>"
    (tmp_path / "b.html").write_text(f"<html><body>{page}</body></html>")
    pdf(tmp_path / "c.pdf", "Bicycles are repaired on Mondays")
    pdf(tmp_path / "d.pdf", "secret", password="x")
    (tmp_path / "e.pdf").write_text("no PDF at all")
    (tmp_path / "f.exe").write_bytes(b"MZ")
    (tmp_path / "g.txt").write_text("\n\n")
    rows, left = made(documents, *sorted(tmp_path.iterdir()))
    said = {row["source"]: row["text"] for row in rows}
    assert said["a.md"] == "# Returns\n\nWithin thirty days, in the box."
    assert "Shipping" in said["b.html"] and "To thirty countries." in said["b.html"]
    assert "Menu" not in said["b.html"] and "track" not in said["b.html"]
    assert said["c.pdf"] == "Bicycles are repaired on Mondays"
    assert set(left) == {
        ("needs a password", "d.pdf"), ("a broken PDF", "e.pdf"),
        (".exe is not .pdf, .html, .md or .txt", "f.exe"), ("no text in it", "g.txt"),
    }  # fmt: skip


@given(st.text(st.sampled_from("ab \n"), max_size=300), st.integers(1, 50))
def test_cutting_a_text_loses_only_white_space(text, most):
    pieces = list(documents.cut(text, most))
    assert all(0 < len(piece) <= most for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_sheet_of_two_columns_becomes_conversations(tmp_path):
    (tmp_path / "a.csv").write_text("Question,Answer\nWhen?,At nine\n,Nobody asked\nWhy?,\n")
    book = Workbook()
    for line in (["frage", "antwort"], ["Wo?", "Hier"], ["Wie viele?", 7]):
        book.active.append(line)
    book.save(tmp_path / "b.xlsx")
    rows, left = made(question_sheet, tmp_path / "a.csv", tmp_path / "b.xlsx", system="Be brief.")
    said = [[turn["content"] for turn in row["messages"]] for row in rows]
    assert said == [
        ["Be brief.", "When?", "At nine"], ["Be brief.", "Wo?", "Hier"], ["Be brief.", "Wie viele?", "7"]
    ]  # fmt: skip
    assert left == [("no question", "a.csv:3"), ("no answer", "a.csv:4")]


def test_a_sheet_whose_columns_cannot_be_told_is_refused_with_the_fix(tmp_path):
    (tmp_path / "a.csv").write_text("id,x,y\n1,When?,At nine\n")
    with pytest.raises(DataError, match="set the parameters question and answer"):
        made(question_sheet, tmp_path / "a.csv")
    with pytest.raises(DataError, match="there is no column 'z'"):
        made(question_sheet, tmp_path / "a.csv", question="z", answer="y")
    assert made(question_sheet, tmp_path / "a.csv", question="x", answer="y")[0][0]["messages"][0] == {
        "role": "user", "content": "When?",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jo.doe+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("call +49 30 123456 or (650) 253-0000", "call [PHONE] or [PHONE]"),
        ("card 4111 1111 1111 1111, 5500-0055-5555-5559", "card [CARD], [CARD]"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN [IBAN]"),
        ("id 11010519491231002X, SSN 078-05-1120", "id [ID], SSN [ID]"),
        ("card 4111 1111 1111 1112", None),
        ("id 110105194912310021", None),
        ("order 20231105, version 1.2.3, 12345 km, 50%, me @ home", None),
    ],
)
def test_what_tells_of_a_person_is_masked_and_look_alikes_are_not(text, masked):
    mask = scrub.masker(set(scrub.KINDS), ["US", "DE", "CN"])
    assert mask(text) == (masked or text)


def test_rows_that_repeat_once_masked_are_left_out(tmp_path):
    rows = [{"prompt": f"mail {who}@x.org", "completion": "done", "n": [1, "a@b.de"]} for who in ("jo", "al")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left = made(scrub, path)
    assert found == [{"prompt": "mail [EMAIL]", "completion": "done", "n": [1, "[EMAIL]"]}]
    assert left == [("repeats an earlier row", "a.jsonl:2")]
    assert len(made(scrub, path, deduplicate=False)[0]) == 2
    assert made(scrub, path, mask=["phone"])[0] == rows
