"""Which files a worker reads for an object that the machine's owner did not write."""

from pathlib import Path

import pytest

from datatunerx.resources.enums import RunType
from datatunerx.runs.plan import DataFiles, InspectDataPlan, RunPlan, identified
from datatunerx.storage import PrivatePlace
from datatunerx.worker.places import check_place


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    part = InspectDataPlan(data=DataFiles(name="d", splits={}))
    made = identified(RunType.INSPECT, f"file://{tmp_path}/home/data", {"inspect_data": part})
    opened = tmp_path / "opened"
    (opened / "sub").mkdir(parents=True)
    (tmp_path / "home" / "data" / "uploads" / "team").mkdir(parents=True)
    (tmp_path / "home" / "data" / "uploads" / "other").mkdir(parents=True)
    allowed = [f"file://{tmp_path}/home/data/uploads/team", opened.as_uri()]
    private = f"file://{tmp_path}/home"
    return made.model_copy(update={"allowed_uris": allowed, "private_uri": private})


@pytest.mark.parametrize("place", ["opened/a", "opened/sub/a", "opened/inside", "home/data/uploads/team/a"])
def test_what_lies_in_an_opened_folder_is_read(plan: RunPlan, tmp_path: Path, place: str) -> None:
    (tmp_path / "opened" / "inside").symlink_to(tmp_path / "opened" / "sub")
    check_place(plan)(tmp_path / place, place)


@pytest.mark.parametrize(
    "place",
    [
        "secret", "opened/link", "opened/folder/secret", "opened/sub/../../secret", "opened-not/a",
        "home/data/uploads/other/a", "home/db/a", "opened/chain",
    ],
)  # fmt: skip
def test_what_leads_out_of_it_is_refused_over_links_too(plan: RunPlan, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "opened" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "opened" / "folder").symlink_to(tmp_path)
    (tmp_path / "opened" / "chain").symlink_to(tmp_path / "opened" / "link")
    with pytest.raises(PrivatePlace, match=place):
        check_place(plan)(tmp_path / place, place)


def test_the_owners_objects_are_read_from_anywhere_but_the_servers_own(plan: RunPlan, tmp_path: Path) -> None:
    plan.allowed_uris = None
    check_place(plan)(tmp_path / "secret", "secret")
    with pytest.raises(PrivatePlace):
        check_place(plan)(tmp_path / "home" / "db" / "a", "a")
