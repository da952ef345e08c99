"""Live pages in a real browser and over real sockets: late, lost, blocked, slow, many, and by strangers."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load

from .waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOB = "jobs/faq-zh-qwen-b"
LOG = "data/runs/00000000/worker.log"
EVENTS = "data/runs/00000000/events.jsonl"
PANE = "dtx-log [data-lines]"


def say(place, text):
    with (place.home / LOG).open("a") as file:
        file.write(text)


def lines(page):
    return page.locator(f"{PANE} > div").all_inner_texts()


def shows(page, text):
    page.locator(PANE).get_by_text(text, exact=True).wait_for()


def draws(page, count):
    """Wait until the first chart has so many points."""
    until(page, f"document.querySelector('dtx-charts')?.figures?.[0].plot?.data[0].length === {count}")


def test_a_page_opened_late_shows_the_whole_history(browse):
    page = browse(f"{JOB}?tab=logs")
    shows(page, "08:00:31 step 31 of 48")
    assert lines(page)[0] == "08:00:00 loading the base model"
    page = browse(f"{JOB}?tab=charts")
    draws(page, 31)
    page.get_by_text("is the lowest so far").first.wait_for()


def test_what_a_log_holds_does_not_run_and_is_seen_as_it_is(browse, place):
    page = browse(f"{JOB}?tab=logs")
    evil = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    say(place, f"{evil} live\n")
    shows(page, f"{evil} live")
    assert page.title() != "owned" and page.locator(f"{PANE} img").count() == 0


def test_points_are_drawn_as_they_are_measured(browse, place):
    page = browse(f"{JOB}?tab=charts")
    draws(page, 31)
    event = {"time": 1795334400.0 + 12 * 32, "type": "metrics", "job": "faq-zh-qwen-b", "step": 32}
    page.route(re.compile(r"/charts\?"), lambda route: None)  # no answer: by the socket or not at all
    with (place.home / EVENTS).open("a") as file:
        file.write(json.dumps(event | {"values": {"loss": 0.31, "learningRate": 0.0004}}) + "\n")
    draws(page, 32)


def test_gaps_are_seen_and_lines_of_seldom_points_are_whole(browse, place):
    """One job told nothing at steps 9, 10, 12 and 13, the other reports at every fifth step only."""
    folder = place.home / "data/runs" / ("9" * 8)
    folder.mkdir()
    seldom, broken = "faq-zh-qwen-c", "contracts-long-context-a"
    with (folder / "events.jsonl").open("w") as file:
        for job, steps in ((broken, (*range(1, 9), 11, *range(14, 81))), (seldom, range(5, 31, 5))):
            for step in steps:
                event = {"time": 1000.0 + step, "type": "metrics", "job": job, "step": step}
                file.write(json.dumps(event | {"values": {"loss": 3.0 if job == broken else 1.0}}) + "\n")
    spec = {"type": "tune", "planId": "9" * 8, "planUri": "file:///plan.json"}
    spec["serves"] = [f"Finetune/{job}" for job in (broken, seldom)]
    write(place, "runs", "run-gaps", spec=spec)
    page = browse(f"compare?tab=curves&models={broken},{seldom}")
    draws(page, 77)  # the steps of both; too many for dots, but where a point stands alone
    inked = """([name, steps]) => {
        const {plot, series} = document.querySelector("dtx-charts").figures[0];
        const n = series.findIndex(([curve]) => curve.job === name) + 1;
        const [r, g, b] = plot.series[n].stroke(plot, n).match(/\\d+/g).map(Number);
        return steps.map((step) => {
            const at = Math.round(plot.valToPos(step, "x", true)), {top, height} = plot.bbox;
            const seen = plot.ctx.getImageData(at, top, 1, height).data;
            const far = (a, b) => Math.abs(a - b) > 15;
            for (let i = 0; i < seen.length; i += 4)
                if (!far(seen[i], r) && !far(seen[i + 1], g) && !far(seen[i + 2], b)) return true;
            return false;
        });
    }"""
    assert page.evaluate(inked, [broken, [7.5, 9.5, 11, 12.5, 20.5]]) == [True, False, True, False, True]
    assert page.evaluate(inked, [seldom, [7.5, 12.5, 22.5]]) == [True, True, True]


def test_scores_on_the_way_have_a_chart_where_there_are_some(browse, place):
    page = browse(f"{JOB}?tab=charts")
    until(page, "!!document.querySelector('dtx-charts')?.figures?.[0].plot")
    assert not page.locator("figure[data-name=evalScore]").is_visible()
    with (place.home / EVENTS).open("a") as file:
        for step, score in ((10, 0.25), (20, 0.75), (30, 0.5)):
            event = {"time": 1795334400.0 + 12 * step, "type": "metrics", "job": "faq-zh-qwen-b"}
            file.write(json.dumps(event | {"step": step, "values": {"evalScore": score}}) + "\n")
    page = browse(f"{JOB}?tab=charts")
    page.locator("figure[data-name=evalScore]").get_by_text("is highest, 0.75 at step 20.").wait_for()


def test_following_stops_only_by_the_readers_own_hand(browse, place):
    page = browse(f"{JOB}?tab=logs")
    say(place, "".join(f"fill {n}\n" for n in range(200)))
    shows(page, "fill 199")
    left = f"(p => p.scrollHeight - p.clientHeight - p.scrollTop)(document.querySelector('{PANE}'))"
    until(page, f"{left} < 5")
    page.locator(PANE).hover()
    page.mouse.wheel(0, -600)
    until(page, "!document.querySelector('dtx-log [name=follow]').checked")
    say(place, "below\n")
    shows(page, "below")
    assert page.evaluate(left) > 5
    page.get_by_label("Follow").check()
    until(page, f"{left} < 5")


def test_older_pages_come_as_the_reader_scrolls_and_two_thousand_lines_are_kept(browse, place):
    say(place, "".join(f"old {n}\n" for n in range(4000)))
    page = browse(f"{JOB}?tab=logs")
    shows(page, "old 3999")
    assert len(lines(page)) == 500
    page.locator(PANE).hover()
    shown, end = lines(page), time.monotonic() + 300
    while "old 1000" not in shown:
        assert time.monotonic() < end and len(shown) <= 2000, shown[:1]
        page.mouse.wheel(0, -20000)
        page.wait_for_timeout(50)
        shown = lines(page)
    assert len(shown) <= 2000


def test_a_search_looks_through_all_of_the_log_and_is_in_the_url(browse, place):
    page = browse(f"{JOB}?tab=logs")
    page.get_by_label("Words in the log").fill("loading base")
    page.get_by_text("1 lines found").wait_for()
    assert lines(page) == ["08:00:00 loading the base model"]
    assert "search=loading" in page.url
    page.reload()
    page.get_by_text("1 lines found").wait_for()
    page.locator(f"{PANE} > div").click()
    until(page, "location.hash === '#L0'")
    shows(page, "08:00:01 step 1 of 48")


def test_what_a_chart_shows_is_in_the_url(browse):
    page = browse("experiments/support-tickets?tab=charts&x=tokens&smooth=0.6&log=1")
    draws(page, 48)
    assert page.locator("[name=x]").input_value() == "tokens"
    assert page.get_by_label("Logarithmic").is_checked()
    frame = page.locator("figure .u-over").first.bounding_box()
    page.mouse.move(frame["x"] + 100, frame["y"] + 60)
    page.mouse.down()
    page.mouse.move(frame["x"] + 300, frame["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=**to=**")
    page.get_by_role("button", name="Whole course").click()
    until(page, "!location.search.includes('from=')")
    draws(page, 48)  # and the legend with it
    page.get_by_role("button", name="r8-lr1e-3").click()
    page.wait_for_url("**off=support-tickets-r8-lr1e-3**")
    with page.expect_download() as got:
        page.get_by_role("button", name="Eval loss as a picture").click()
    assert got.value.suggested_filename == "evalLoss.png"


def test_a_change_of_an_object_is_seen_without_waiting_for_a_poll(browse, place):
    page = browse("settings")
    page.add_init_script("""const often = setInterval;
        window.setInterval = (what, ms, ...rest) => ms === 3000 ? 0 : often(what, ms, ...rest)""")
    page.goto(f"{place.url}/console/ns/default/jobs")  # which never looks of its own accord
    until(page, "dtxLive.connected")
    write(place, "finetunejobs", "faq-zh-qwen-c", status={"phase": "Stopped"})
    row = page.get_by_role("row").filter(has_text="faq-zh-qwen-c")
    row.get_by_text("Stopped").first.wait_for()


def write(place, plural, name, *, spec=None, status=None):
    """Make an object, or write its status, from outside."""
    from datatunerx.client import Api, Plural

    async def ask():
        async with Https(load(place.home / "kubeconfig")) as transport:
            api, kind = Api(transport), Plural("datatunerx.io", "v1beta1", plural)
            if spec:
                body = {"apiVersion": "datatunerx.io/v1beta1", "kind": "Run", "metadata": {"name": name}}
                await api.create_raw(kind, body | {"spec": spec})
            if status:
                await api.patch_status(kind, name, {"status": status})

    with ThreadPoolExecutor(1) as thread:  # Playwright has a loop in this one
        thread.submit(lambda: asyncio.run(ask())).result()


def test_eight_tabs_are_live_at_once(browse, place):
    pages = [browse(f"{JOB}?tab=logs") for _ in range(8)]
    for page in pages:
        until(page, "dtxLive.connected")
    say(place, "to all eight\n")
    for page in pages:
        shows(page, "to all eight")


def test_where_sockets_are_blocked_polling_brings_the_same(browse, place, context):
    script = """window.WebSocket = class {
        static OPEN = 1;
        constructor() { setTimeout(() => this.onclose({ code: 1006 }), 5); }
    }"""
    page = browse("settings")
    page.add_init_script(script)
    page.goto(f"{place.url}/console/ns/default/{JOB}?tab=logs")
    until(page, "dtxLive.connected")
    say(place, "by polling\n")
    shows(page, "by polling")


# Without a browser: the socket itself


def cookie(context):
    return "; ".join(f"{each['name']}={each['value']}" for each in context.cookies())


def dial(place, cookies, **headers):
    """A socket of the console."""
    unsafe = ssl.create_default_context()
    unsafe.check_hostname, unsafe.verify_mode = False, ssl.CERT_NONE
    given = {"Cookie": cookies, "Origin": place.url} | headers
    url = f"{place.url.replace('https', 'wss')}/console/ns/default/live"
    return connect(
        url, ssl=unsafe, additional_headers=given, origin=None, proxy=None, max_queue=1, open_timeout=240
    )


def talk(place, context, body, **headers):
    """Run `body(socket)` on a socket of the console."""
    cookies = cookie(context)

    async def run():
        async with dial(place, cookies, **headers) as socket:
            return await asyncio.wait_for(body(socket), 300)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


async def hello(socket):
    return json.loads(await socket.recv())


@pytest.mark.parametrize("origin", ["https://evil.example", "https://127.0.0.1:1", "null"])
def test_a_foreign_origin_is_refused_on_the_socket(place, context, origin):
    assert talk(place, context, hello) == {"beat": 1}
    with pytest.raises(InvalidStatus) as refused:
        talk(place, context, hello, Origin=origin)
    assert refused.value.response.status_code == 403


def test_without_a_session_there_is_no_socket(place, context):
    with pytest.raises(InvalidStatus) as refused:
        talk(place, context, hello, Cookie="a=b")
    assert refused.value.response.status_code == 403


def test_a_client_that_does_not_read_is_told_of_the_gap(place, context):
    async def body(socket):
        follow = json.dumps({"follow": {"log:run-b": 0}})
        await socket.send(follow)
        async with dial(place, cookies) as other:
            await other.send(follow)
            for _ in range(15):  # more than any buffer between us holds
                say(place, f"{'y' * 200}\n" * 5000)
                while json.loads(await other.recv()).get("to", 0) < log.stat().st_size:
                    pass  # when another has it all, it was sent to us, too
        while True:
            message = json.loads(await socket.recv())
            if message.get("gap"):
                return message

    log, cookies = place.home / LOG, cookie(context)
    kept = log.read_bytes()
    try:
        assert talk(place, context, body)["gap"] > 1 << 20
    finally:
        log.write_bytes(kept)


def test_training_does_not_notice_who_looks(place, context):
    """R14: nobody, one who never reads, fifty that vanish; the worker only ever writes its files."""
    worker = textwrap.dedent("""
        import sys, time
        from datatunerx.runs.events import Event, EventType
        from datatunerx.telemetry.events import EventWriter
        writer = EventWriter(sys.argv[1])
        slowest = 0.0
        for step in range(100, 700):
            began = time.thread_time()
            writer.write(Event(type=EventType.METRICS, job="faq-zh-qwen-b", step=step, values={"loss": 1.0}))
            slowest = max(slowest, time.thread_time() - began)
            time.sleep(0.002)
        print(slowest)
    """)

    async def body(socket):
        await socket.send(json.dumps({"follow": {"points:run-b": 0, "log:run-b": 0}}))  # and never reads
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", worker, str(place.home / EVENTS), stdout=subprocess.PIPE
        )

        async def vanish():
            other = await dial(place, cookies)
            await other.send(json.dumps({"follow": {"points:run-b": 0}}))
            other.transport.abort()

        await asyncio.gather(*(vanish() for _ in range(50)))
        said, _ = await process.communicate()
        return process.returncode, float(said)

    cookies = cookie(context)
    kept = (place.home / EVENTS).read_bytes()
    code, slowest = talk(place, context, body)
    assert code == 0 and slowest < 0.1
    written = (place.home / EVENTS).read_text().count('"step":')

    async def again(socket):
        await socket.send(json.dumps({"follow": {"points:run-b": 0}}))
        steps = []
        while 699 not in steps:
            message = json.loads(await socket.recv())
            for columns in message.get("jobs", {}).get("faq-zh-qwen-b", {}).values():
                steps += columns[0]
        return steps

    try:
        assert written > 600 and set(range(100, 700)) <= set(talk(place, context, again))
    finally:
        (place.home / EVENTS).write_bytes(kept)


# A server that is started anew


@pytest.fixture
def restartable(place, tmp_path):
    """A server with a home of its own, to be stopped and started again at the same port."""
    environment = {**os.environ, "DTX_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}

    def start():
        command = [sys.executable, "-m", "datatunerx.cli", "up", "--port", start.port, "--no-controllers"]
        server = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)
        start.port = re.search(r"https://\S+:(\d+)", server.stdout.readline())[1]
        link = re.search(r"https://\S+", server.stdout.readline())[0]
        servers.append(server)
        return link

    servers = []
    start.port = "0"
    start.home = tmp_path / "home"
    start.stop = lambda: (servers[-1].terminate(), servers[-1].wait(120), servers[-1].stdout.close())
    yield start
    if servers[-1].poll() is None:
        start.stop()


def test_a_page_goes_on_after_the_server_was_started_anew(restartable, chromium):
    link = restartable()
    folder = restartable.home / "data/runs" / ("e" * 8)
    folder.mkdir(parents=True)
    log = folder / "worker.log"
    log.write_text("before\n")

    async def make():
        from datatunerx.client import Api, Plural

        async with Https(load(restartable.home / "kubeconfig")) as transport:
            api, runs = Api(transport), Plural("datatunerx.io", "v1beta1", "runs")
            body = {"apiVersion": "datatunerx.io/v1beta1", "kind": "Run", "metadata": {"name": "r"}}
            spec = {"type": "tune", "planId": "e" * 8, "planUri": "file:///plan.json"}
            await api.create_raw(runs, body | {"spec": spec})
            await api.patch_status(runs, "r", {"status": {"phase": "Running", "logUri": f"file://{log}"}})

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(make())).result()
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(link)
    page.goto(f"{link.split('/login')[0]}/ns/default/devices/r")
    shows(page, "before")
    until(page, "dtxLive.connected")
    restartable.stop()
    with log.open("a") as file:
        file.write("meanwhile\n")  # the worker does not know of it
    page.get_by_text("Reconnecting; data from").wait_for()
    restartable()
    with log.open("a") as file:
        file.write("after\n")
    shows(page, "after")
    assert lines(page) == ["before", "meanwhile", "after"]
    page.get_by_text("Reconnecting; data from").wait_for(state="hidden")
    context.close()
