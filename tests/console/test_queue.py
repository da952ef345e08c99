"""The queue: what runs where is shown, and an order is made of priorities, as few as do."""

import asyncio
import itertools
import re

import pytest

from datatunerx.app.usage import parse, used
from datatunerx.client.api import Plural
from datatunerx.console.host import Device, Host
from datatunerx.console.queue_order import Waiting, in_order, moved, priorities
from datatunerx.resources.enums import Precision

FINETUNES = Plural("datatunerx.io", "v1beta1", "finetunes")
RUNS = Plural("datatunerx.io", "v1beta1", "runs")
ITEMS = [Waiting(name, 0, f"2026-11-22T08:00:0{n}Z") for n, name in enumerate("abcd")]


def after(items, changes):
    return "".join(
        item.name for item in in_order([i._replace(priority=changes.get(i.name, i.priority)) for i in items])
    )


@pytest.mark.parametrize("wanted", list(itertools.permutations("abcd")))
@pytest.mark.parametrize("given", [(0, 0, 0, 0), (0, 3, 3, -1), (5, 1, 9, 1)])
def test_any_order_is_made_by_priorities(wanted, given):
    items = [item._replace(priority=priority) for item, priority in zip(ITEMS, given, strict=True)]
    assert after(items, priorities(items, wanted)) == "".join(wanted)


def test_one_that_goes_first_or_last_changes_alone_and_what_stands_well_changes_nothing():
    assert priorities(ITEMS, "dabc") == {"d": 1}
    assert priorities(ITEMS, "bcda") == {"a": -1}
    assert priorities(ITEMS, "abcd") == {}


def test_what_came_or_went_meanwhile_does_not_matter():
    assert after(ITEMS, priorities(ITEMS, ["c", "gone", "a"])) == "cabd"


def test_a_step_past_an_end_is_none():
    assert "".join(moved(ITEMS, "a", -1)) == "abcd" and "".join(moved(ITEMS, "b", -1)) == "bacd"
    assert "".join(moved(ITEMS, "c", 1)) == "abdc"


async def _wait(api, *names):
    for name in names:
        tune = {"llm": "smollm2", "dataset": "support-tickets", "hyperparameter": {"ref": "tickets"}}
        body = {"apiVersion": "datatunerx.io/v1beta1", "kind": "Finetune", "metadata": {"name": name}}
        await api.create_raw(FINETUNES, body | {"spec": tune})
        status = {"phase": "Pending", "reason": "Queued", "expectedStart": "2026-11-22T09:15:00Z"}
        await api.patch_status(FINETUNES, name, {"status": status})


async def test_the_order_is_changed_by_priorities_of_what_waits(filled):
    await _wait(filled.api, "w1", "w2", "w3")
    page = await filled.get("devices")
    assert page.index("queue-w1") < page.index("queue-w3") and "from 09:15 UTC" in page
    await filled.post("devices/_queue", {"name": "w3", "by": "-1"})
    found = [(await filled.api.get(FINETUNES, n))["spec"].get("priority", 0) for n in ("w1", "w2", "w3")]
    assert found in ([1, 0, 1], [0, -1, 0])
    await filled.post("devices/_queue", {"order": ["w2", "w3", "w1"]})
    page = await filled.get("devices")
    assert page.index("queue-w2") < page.index("queue-w3") < page.index("queue-w1")


async def test_a_long_queue_is_shown_page_by_page_and_moved_across_them(filled):
    names = [f"w{n:03}" for n in range(500)]
    for start in range(0, 500, 50):
        await asyncio.gather(*(_wait(filled.api, name) for name in names[start : start + 50]))
    for name in names:  # as if they had come in this order
        await filled.api.patch(FINETUNES, name, {"spec": {"priority": 500 - names.index(name)}})

    def shown(page):
        return re.findall(r'id="queue-([^"]+)"', page)

    first = await filled.get("devices")
    assert shown(first) == names[:24] and "1 to 25 of 501" in first  # behind a run that is made already
    assert len(first) < 150_000
    second = await filled.get("devices?waiting=2&state=Running")
    assert shown(second) == names[24:49] and '<b class="num">26</b>' in second
    assert "waiting=3" in second and 'name="waiting" value="2"' in second
    assert shown(await filled.get("devices?waiting=999")) == names[-1:]
    await filled.post("devices/_queue", {"name": "w024", "by": "-1"})
    assert shown(await filled.get("devices"))[-2:] == ["w022", "w024"]
    page = shown(await filled.get("devices?waiting=2"))
    await filled.post("devices/_queue", {"order": [page[-1], *page[:-1]]})  # dragged to the top of its page
    assert shown(await filled.get("devices?waiting=2")) == [page[-1], *page[:-1]]
    assert shown(await filled.get("devices?waiting=3"))[0] == "w049"


async def test_a_viewer_sees_the_order_and_cannot_change_it(filled):
    await _wait(filled.api, "w1", "w2")
    await filled.login("v" * 40)
    page = await filled.get("devices")
    assert "queue-w1" in page and "draggable" not in page and "Move w1" not in page
    await filled.post("devices/_queue", {"order": ["w2", "w1"]}, code=409)


async def test_what_runs_where_and_how_full_it_is_is_shown(filled):
    device = Device("0", "NVIDIA H100", 80 << 30, 20 << 30, 0.93)
    host = Host(1, 1, 80 << 30, 1 << 40, Precision.BFLOAT16, lambda: (device,))
    await filled.api.patch_status(RUNS, "run-b", {"status": {"devices": ["0"]}})
    for page in filled._app._pages.values():
        page.state.host = lambda: host
    shown = await filled.get("devices")
    card = shown[shown.index("GPU 0") : shown.index("Waiting, in this order")]
    assert "NVIDIA H100" in card and "21.5 GB of 85.9 GB" in card and "93 %" in card
    assert "run-b" in card and "faq-zh-qwen-b" in card and "64 %" in card


def test_what_nvidia_smi_tells_is_read_and_what_it_does_not_know_is_nothing():
    said = "0, NVIDIA H100 80GB HBM3, 81559, 1024, 7\n1, NVIDIA A2, 15356, 0, [N/A]\n"
    one, two = parse(said)
    assert (one.name, one.used_bytes, one.busy) == ("0", 1 << 30, 0.07)
    assert (two.model, two.busy) == ("NVIDIA A2", 0.0)


def test_without_a_gpu_the_cpu_is_the_device():
    (cpu,) = used(0)
    assert cpu.name == "cpu" and 0 < cpu.used_bytes < cpu.memory_bytes
