async def test_an_empty_list_says_what_belongs_there(console):
    await console.login()
    page = await console.get("experiments")
    assert "No experiments yet" in page
