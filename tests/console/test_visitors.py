"""Who gets in, and who may do what: links that work once, sealed cookies, CSRF, roles, foreign pages."""

import re

import pytest

from datatunerx.client.api import Plural
from datatunerx.console import PREFIX, Sessions

ADMIN, VIEWER = "a" * 40, "v" * 40
PLACE = f"{PREFIX}/ns/default/experiments"
EXPERIMENTS = Plural("datatunerx.io", "v1beta1", "finetuneexperiments")


async def test_who_has_not_logged_in_is_led_to_the_door(console):
    answer = await console.http.get(PLACE)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{PREFIX}/login?next=%2Fconsole%2Fns%2Fdefault%2Fexperiments"
    assert (await console.http.get("/", headers={"accept": "text/html"})).headers["location"] == f"{PREFIX}/"


async def test_a_link_lets_in_once(console):
    link = f"{PREFIX}/login?once={console.sessions.link(ADMIN)}"
    first = await console.http.get(link)
    cookie = first.headers["set-cookie"].lower()
    assert first.status_code == 303
    assert all(word in cookie for word in ("__host-", "httponly", "samesite=strict", "secure", "path=/"))
    assert (await console.http.get(PLACE)).status_code == 200
    async with console.another() as stranger:
        assert "used already" in (await stranger.get(link)).text
        assert (await stranger.get(PLACE)).status_code == 303


async def test_a_token_typed_in_is_tried_on_the_server(console):
    page = (await console.http.get(f"{PREFIX}/login")).text
    fields = {"csrf": re.search(r'name="csrf" value="(\w+)"', page)[1], "token": "wrong"}
    assert "does not know this token" in (await console.http.post(f"{PREFIX}/login", data=fields)).text
    answer = await console.http.post(f"{PREFIX}/login?next=//evil.example/", data=fields | {"token": VIEWER})
    assert answer.headers["location"] == PLACE
    assert "vera" in (await console.http.get(PLACE)).text


def test_a_cookie_of_another_server_or_of_last_week_opens_nothing():
    now = 1_000_000.0
    sessions = Sessions(b"one", lambda: now)
    session = sessions.begin("token")
    cookie = sessions.seal(session)
    assert sessions.open(cookie) == session
    assert Sessions(b"one", lambda: now + 60).open(cookie) == session  # a server that was started anew
    assert Sessions(b"two", lambda: now).open(cookie) is None
    assert Sessions(b"one", lambda: now + 8 * 86400).open(cookie) is None
    assert not sessions.genuine(sessions.begin("token"), sessions.csrf(session))
    link = sessions.link("token")
    now += 3601
    assert sessions.take(link) is None


async def test_a_change_without_the_csrf_token_is_refused(filled):
    await filled.get("experiments")
    fields = {"do": "delete", "target": "fe/support-tickets"}
    for given in ("", "0" * 64):
        filled.csrf = given
        await filled.post("act", fields, code=403)
    assert await filled.api.get(EXPERIMENTS, "support-tickets")


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}],
)
async def test_a_page_of_another_site_may_not_use_it(filled, headers):
    answer = await filled.http.get(PLACE, headers=headers)
    assert answer.status_code == 403


async def test_a_viewer_sees_no_button_that_would_be_refused(filled):
    page = await filled.get("experiments/faq-zh-qwen")
    assert all(word in page for word in ("do=stop", "do=delete", "/edit"))
    await filled.login(VIEWER)
    for path in (
        "experiments",
        "experiments/faq-zh-qwen",
        "jobs",
        "jobs/faq-zh-qwen-b",
        "datasets/support-tickets",
        "models",
    ):
        page = await filled.get(path)
        assert (
            "do=stop" not in page and "do=delete" not in page and "/edit" not in page and "/new" not in page
        )
    await filled.post("act", {"do": "delete", "target": "fe/support-tickets"}, code=409)
    assert await filled.api.get(EXPERIMENTS, "support-tickets")


async def test_answers_forbid_what_is_inline_or_from_elsewhere(filled):
    answer = await filled.http.get(PLACE)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy and "default-src 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r'\sstyle="|\son\w+="|<script(?![^>]*\ssrc=)', answer.text)
