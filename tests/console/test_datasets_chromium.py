"""Data in a real browser, on a server that inspects it: upload, check, register; cancel and resume."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EVIL = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'
GOOD = [
    {
        "messages": [
            {"role": "user", "content": f"Ticket {n} {EVIL}"},
            {"role": "assistant", "content": f"sort {n % 3}"},
        ]
    }
    for n in range(40)
]


@pytest.fixture(scope="module")
def place(alive):
    return alive


@pytest.fixture
def upload(browse):
    """Upload files and have them checked; the page of the draft."""

    def upload(*files):
        page = browse("datasets/_new")
        page.locator("dtx-upload input[type=file]").set_input_files(files)
        page.locator("dtx-upload form button:not([disabled])").click()
        page.get_by_text("Checked, not registered").wait_for()
        return page

    return upload


def test_a_bad_file_shows_its_line_and_a_good_one_is_registered(upload, tmp_path):
    lines = [json.dumps(row) for row in GOOD]
    lines[16:16] = ["{broken", json.dumps({"messages": [{"role": "user", "content": EVIL}]})]
    path = tmp_path / "tickets.jsonl"
    path.write_text("\n".join(lines) + "\n")
    held = tmp_path / "tickets-test.jsonl"
    held.write_text("\n".join(lines[:5]) + "\n")
    page = upload(path, held)
    page.get_by_role("link", name="Problems 2").click(timeout=240_000)
    page.get_by_role("row", name="tickets.jsonl:17 bad JSON").wait_for()
    page.get_by_role("row", name="tickets.jsonl:18 no assistant turn").get_by_text(
        "add the answer to learn"
    ).wait_for()
    page.get_by_role("link", name="Rows").click()
    assert page.locator(".turn.trained").first.inner_text() == "assistant\nsort 0"
    assert EVIL in page.locator(".turn").first.inner_text()
    assert page.locator("[onerror]").count() == 0 and page.title() != "owned"
    page.get_by_role("button", name="Register the dataset").click()
    page.get_by_role("link", name="Clone with changes").wait_for()
    assert not page.get_by_text("not registered").is_visible()


def test_columns_of_another_name_are_mapped_where_it_is_told(upload, tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("frage,antwort\n" + "hallo,servus\nwie geht es,gut\n" * 10)
    page = upload(path)
    page.get_by_label("Question").fill("frage", timeout=240_000)
    page.get_by_label("Answer").fill("antwort")
    page.get_by_role("button", name="Check again").click()
    page.get_by_text("prompt-completion").first.wait_for(timeout=240_000)
    page.get_by_role("button", name="Register the dataset").wait_for()


def test_an_upload_is_cancelled_and_gone_on_with(browse, tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for n in range(90_000):
            file.write(json.dumps({"prompt": f"{n} " + "x" * 100, "completion": "y"}) + "\n")
    page = browse("datasets/_new")
    held = []
    page.route("**/_uploads/*offset=4194304*", lambda route: held.append(route))
    with page.expect_request("**/_uploads/*offset=4194304*"):
        page.locator("dtx-upload input[type=file]").set_input_files(path)
    page.get_by_text("left").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("stopped at").wait_for()
    assert held, "nothing was on its way"
    assert page.get_by_role("button", name="Check the data").is_disabled()
    page.unroute("**/_uploads/*offset=4194304*")
    parts = []
    page.on("request", lambda asked: parts.append(asked.url) if "offset=" in asked.url else None)
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("uploaded").wait_for()
    assert "offset=4194304" in parts[0], "it began anew"
    page.get_by_role("button", name="中文").click()
    page.get_by_text("已上传").wait_for()
    assert page.get_by_role("button", name="检查数据").is_enabled()
    page.get_by_role("button", name="EN", exact=True).click()
    browse.complaints.clear()  # of the request that was cancelled


def test_a_server_that_is_away_for_a_moment_is_waited_for(browse, context, tmp_path):
    path = tmp_path / "small.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in GOOD))
    page = browse("datasets/_new")
    context.set_offline(True)
    try:
        with page.expect_event("requestfailed", lambda asked: "/_uploads" in asked.url):
            page.locator("dtx-upload input[type=file]").set_input_files(path)
        assert not page.get_by_text("uploaded").is_visible()
    finally:
        context.set_offline(False)
    page.get_by_text("uploaded").wait_for()
    browse.complaints.clear()  # of requests that found nobody, as they had to


def test_a_page_of_another_origin_uploads_nothing(context, place):
    url = f"{place.url}/console/ns/default/datasets/_uploads"
    answer = context.request.post(url, data="{}", headers={"origin": "https://evil.example"})
    assert answer.status == 403 and "https://evil.example" in answer.text()


def test_a_plugin_makes_the_rows_and_its_failure_is_told_in_its_own_words(upload, place, tmp_path):
    plugin = {"apiVersion": "datatunerx.io/v1beta1", "kind": "DataPlugin", "metadata": {"name": "sheet"}}
    manifest = json.dumps(plugin | {"spec": {"entryPoint": "question-sheet"}})
    apply = [sys.executable, "-m", "datatunerx.cli", "apply", "-f", "-"]
    subprocess.run(apply, input=manifest, env=place.environment, text=True, check=True, timeout=120)
    path = tmp_path / "sheet.csv"
    path.write_text("frage,antwort\n" + "hallo,servus\nwie geht es,gut\n" * 10)
    page = upload(path)
    page.get_by_label("Question").wait_for(timeout=240_000)
    page.get_by_role("link", name="Run a plugin").click()
    while not page.get_by_label("question", exact=True).is_visible():
        page.wait_for_timeout(1000)
        page.reload()
    page.get_by_label("question", exact=True).fill("nowhere")
    page.get_by_role("button", name="Run the plugin").click()
    page.locator(".notice.bad", has_text="nowhere").wait_for(timeout=240_000)
    page.get_by_role("link", name="Run a plugin").click()
    page.get_by_label("question", exact=True).fill("frage")
    page.get_by_label("answer", exact=True).fill("antwort")
    page.get_by_role("button", name="Run the plugin").click()
    page.get_by_role("heading", name="Made by a plugin").wait_for(timeout=240_000)
    assert page.locator(".figures").get_by_text("20", exact=True).first.is_visible()
