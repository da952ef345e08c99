"""A scorer: the share of answers that say one of the polite words."""

from datatunerx.plugins import ScoreCall, Scorer, hookimpl

PARAMETERS = {
    "type": "object",
    "properties": {
        "words": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    },
    "additionalProperties": False,
}


def polite(call: ScoreCall) -> list[float | None]:
    """One mark for each answer: 1 or 0, and None for an empty answer, which does not count."""
    words = [word.lower() for word in call.parameters.get("words", ["please", "thank"])]
    return [
        float(any(word in p["answer"].lower() for word in words)) if p["answer"].strip() else None
        for p in call.predictions
    ]


@hookimpl
def scorers() -> dict[str, Scorer]:
    return {"polite": Scorer(polite, "How many answers are polite.", PARAMETERS)}
