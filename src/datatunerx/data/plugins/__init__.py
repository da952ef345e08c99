"""The data plugins that come with datatunerx, found through an entry point like any other."""

from collections.abc import Mapping

from datatunerx.data.plugins import documents, question_sheet, scrub
from datatunerx.plugins import DataPlugin, hookimpl


@hookimpl
def data_plugins() -> Mapping[str, DataPlugin]:
    return {
        "documents": documents.PLUGIN,
        "question-sheet": question_sheet.PLUGIN,
        "scrub": scrub.PLUGIN,
    }
