"""The small curves of tables: of which points, in whose colour, when they are drawn, and what they weigh."""

import re

import pytest

from datatunerx.console import charts, sparklines
from datatunerx.console.pages import experiments

LINE = charts.Line("job", "tune", "job", 3, 1, True, ("run",))
DONE, TRAINS = "support-tickets-r8-lr2e-3", "faq-zh-qwen-b"


def curve(x, y, smooth=(), grid=None):
    return {"curves": [{"x": x, "y": y, "smooth": list(smooth)}], "grid": grid}


def points(spark):
    return [tuple(map(float, pair.split(","))) for pair in spark.points.split()]


def test_a_falling_loss_falls_from_the_upper_left_to_the_lower_right():
    spark = sparklines.spark(curve([1, 2, 3], [2.0, 1.0, 0.5]), LINE)
    assert points(spark) == [(2, 2.0), (40, 12.7), (78, 18.0)]
    assert (spark.hue, spark.dash, spark.first, spark.last) == (3, 1, 2.0, 0.5)


def test_a_cut_curve_is_drawn_by_one_point_of_each_part_and_gaps_are_left_out():
    grid = list(range(2 * sparklines.ASKED.bins))
    values = [float("nan"), None, *map(float, grid[2:])]
    spark = sparklines.spark(curve([], [], values, grid), LINE)
    assert len(points(spark)) == len(grid) - 2 and spark.first == 2.0
    parts = curve(grid, [1.0] * len(grid), [1.0] * len(grid))
    parts["curves"] *= 2  # of a job that two runs trained
    assert len(points(sparklines.spark(parts, LINE))) == len(grid) + 1


@pytest.mark.parametrize("found", [{"curves": [], "grid": None}, curve([1], [2.0])])
def test_nothing_is_drawn_of_less_than_two_points(found):
    assert sparklines.spark(found, LINE) is None


@pytest.fixture
async def trained(told):
    sparklines._known.clear()
    experiments._settled.clear()
    return told


async def test_lists_draw_the_loss_in_the_colour_of_the_job_and_read_nothing_twice(trained, monkeypatch):
    monkeypatch.setattr(sparklines, "WAIT_SECONDS", 30)
    asked = []
    real = charts.chart
    monkeypatch.setattr(charts, "chart", lambda *args: asked.append(args[2][0].job) or real(*args))
    page = await trained.get(f"jobs?q={DONE}")
    (drawn,) = re.findall(r'<svg class="spark s(\d) d(\d)".*?points="([^"]+)"', page)
    job = (await trained.get("experiments/support-tickets")).split(f'data-job="{DONE}"')[1].split("</tr>")[0]
    assert f'class="dot s{drawn[0]} d{drawn[1]}"' in job and drawn[2] in job
    assert drawn[2] in await trained.get("experiments")  # the best job's
    assert len(re.search(r'<svg class="spark.*?</svg>', page)[0]) < 700  # fifty of them are 35 kB
    assert asked.count(DONE) == 1
    await trained.get("experiments")
    await trained.get(f"jobs?q={TRAINS}")
    assert asked.count(DONE) == asked.count(TRAINS) == 1

    tune = await trained.api.get(charts.kinds.PLURALS["Finetune"], TRAINS)
    progress = tune["status"]["progress"] | {"step": 32}
    await trained.api.patch_status(
        charts.kinds.PLURALS["Finetune"], TRAINS, {"status": {"progress": progress}}
    )
    await trained.get("experiments")
    assert asked.count(TRAINS) == 2 and asked.count(DONE) == 1


async def test_a_page_does_not_wait_for_a_curve_and_has_it_the_next_time(trained, monkeypatch):
    monkeypatch.setattr(sparklines, "WAIT_SECONDS", 0)
    assert 'class="spark' not in await trained.get(f"jobs?q={DONE}")
    for task in list(sparklines._drawing.values()):
        await task
    assert 'class="spark' in await trained.get(f"jobs?q={DONE}")
