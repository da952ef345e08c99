"""The wizard: a draft that lives in the API, the objects it becomes, and what will come of them."""
