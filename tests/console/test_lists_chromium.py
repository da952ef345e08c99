"""Lists in a real browser: ticks on many pages, columns by keyboard, names to copy, rows that move."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from datatunerx.client import Api
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.console.kinds import PLURALS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MANY = [f"many-{n:02}" for n in range(30)]


def on_server(place, act):
    """Do something through the API. Playwright has a loop in this thread already."""

    async def with_api():
        async with Https(load(place.home / "kubeconfig")) as transport:
            await act(Api(transport))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(with_api())).result()


@pytest.fixture(scope="module", autouse=True)
def checkpoints(place):
    """More than fit on one page."""

    async def make(api):
        ckpt = PLURALS["LLMCheckpoint"]
        found = await api.get(ckpt, "support-tickets-r8-lr2e-3")
        body = {key: found[key] for key in ("apiVersion", "kind", "spec")}
        body["spec"] = {key: value for key, value in body["spec"].items() if key != "exports"}
        for name in MANY:
            await api.create_raw(ckpt, body | {"metadata": {"name": name}})

    on_server(place, make)


def box(page, name):
    return page.get_by_label(f"Select {name}", exact=True)


def says(page, text):
    page.locator(".selection").get_by_text(text, exact=True).wait_for()


def test_ticks_stay_over_pages_orders_and_filters_and_all_of_them_are_acted_on(browse):
    page = browse("models?size=25&sort=name")
    every = page.get_by_label("Select all")
    for name in MANY[:3]:
        box(page, f"ckpt/{name}").check()
    box(page, f"ckpt/{MANY[2]}").uncheck()
    says(page, "2 selected")
    assert every.evaluate("box => box.indeterminate")
    page.get_by_role("link", name="Next").click()
    page.get_by_text("26 to").wait_for()
    says(page, "2 selected")
    says(page, "2 of them not on this page")
    assert not every.evaluate("box => box.indeterminate || box.checked")
    box(page, f"ckpt/{MANY[29]}").check()
    says(page, "3 selected")
    page.get_by_role("link", name="Before").click()
    page.get_by_text("1 to 25 of").wait_for()
    says(page, "3 selected")
    assert [box(page, f"ckpt/{name}").is_checked() for name in MANY[:3]] == [True, True, False]
    page.get_by_role("link", name="Name").click()  # the other way round
    says(page, "2 of them not on this page")
    assert box(page, f"ckpt/{MANY[29]}").is_checked()
    page.get_by_label("Filter this list").fill("many-0")
    page.get_by_text("1 to 10 of 10").wait_for()
    says(page, "3 selected")
    says(page, "1 of them not on this page")
    assert box(page, f"ckpt/{MANY[0]}").is_checked()
    page.locator(".selection").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_text("3 objects are changed").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.locator(".selection").get_by_role("button", name="Use as next base").click()
    page.get_by_text("It goes on from 3 checkpoints").wait_for()
    assert set(page.locator("input[name=base]").input_value().split(",")) == {MANY[0], MANY[1], MANY[29]}


def test_who_goes_back_finds_what_was_ticked_since_and_can_untick_all(browse):
    page = browse("models?size=25&sort=name")
    box(page, f"ckpt/{MANY[0]}").check()
    page.get_by_role("link", name="Next").click()
    page.get_by_text("26 to").wait_for()
    says(page, "1 selected")  # now its script has run
    box(page, f"ckpt/{MANY[29]}").check()
    page.go_back()
    page.get_by_text("1 to 25 of").wait_for()
    says(page, "2 selected")
    page.get_by_role("button", name="Select none").click()
    page.locator(".selection").wait_for(state="hidden")
    assert not box(page, f"ckpt/{MANY[0]}").is_checked()
    assert "selected" not in page.url


def test_a_tick_stays_with_its_object_when_rows_change_places(browse, place):
    page = browse("jobs")
    names = page.locator("#page tbody td.name a").all_inner_texts()
    ticked, last = names[1], names[-1]
    box(page, f"fj/{ticked}").check()

    async def fail(api):
        await api.patch_status(PLURALS["FinetuneJob"], last, {"status": {"phase": "Failed"}})

    on_server(place, fail)  # so that it needs somebody, and goes up
    page.locator("#page tbody tr").filter(has_text=last).get_by_text("Failed").wait_for()
    now = page.locator("#page tbody td.name a").all_inner_texts()
    assert now.index(ticked) != 1
    row = page.locator("#page tbody tr").filter(has=page.get_by_role("link", name=ticked, exact=True))
    assert row.locator("input").input_value() == f"fj/{ticked}" and row.locator("input").is_checked()
    assert page.locator("#page td.pick input:checked").count() == 1


def test_columns_are_chosen_by_keys_sent_by_link_and_remembered(browse):
    page = browse("experiments/support-tickets")
    heads = page.locator("table", has=page.locator("tr[data-job]")).locator("th[scope=col]")
    assert heads.all_inner_texts() == ["Job", "State", "Progress", "Loss", "Tokens/s", "Score"]
    menu = page.locator("summary", has_text="Columns")
    menu.focus()
    page.keyboard.press("Enter")
    page.get_by_role("checkbox", name="Loss").focus()
    with page.expect_response("**/remember"):
        page.keyboard.press("Space")
    page.get_by_text("5/6").wait_for()
    assert heads.all_inner_texts() == ["Job", "State", "Progress", "Tokens/s", "Score"]
    assert page.get_by_role("checkbox", name="Loss").evaluate("box => box === document.activeElement")
    page.keyboard.press("Escape")
    page.get_by_role("checkbox", name="Loss").wait_for(state="hidden")
    assert menu.evaluate("summary => summary === document.activeElement")
    assert page.url.endswith("?columns=name%2Cstate%2Cprogress%2Ctokens-s%2Cscore")
    page = browse("experiments/contracts-long-context")  # another page of the same kind of table
    assert page.locator("th", has_text="Score").count() and not page.locator("th", has_text="Loss").count()
    page = browse("experiments/support-tickets?columns=name,loss")  # as somebody else sent it
    assert page.locator("th", has_text="Loss").count() == 1
    page.locator("summary", has_text="Columns").click()
    for name in ("State", "Progress", "Tokens/s", "Score"):
        with page.expect_response("**/remember"):
            page.get_by_role("checkbox", name=name).check()
    page.locator("summary b", has_text="/6").wait_for(state="detached")
    page = browse("experiments/contracts-long-context")
    assert page.locator("th", has_text="Loss").count() == 1


def test_the_name_of_a_row_is_copied(browse, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = browse("experiments/support-tickets")
    name = "support-tickets-r16-lr2e-3"
    row = page.locator("tr[data-job]").filter(has_text="r16-lr2e-3")
    button = row.get_by_role("button", name=f"Copy {name}")
    assert button.evaluate("node => getComputedStyle(node).opacity") == "0"
    row.get_by_role("link").focus()
    assert button.evaluate("node => getComputedStyle(node).opacity") == "1"
    page.keyboard.press("Tab")
    assert button.evaluate("node => node === document.activeElement")
    page.keyboard.press("Enter")
    page.locator("#toasts").get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == name
    assert re.fullmatch("r16-lr2e-3", row.get_by_role("link").inner_text())
