"""Rows from any source into conversations into tokens, and the data report.

for row in read_rows(files, Split.TRAIN): ...        # conversations, or the Problem with a row
facts = inspect(files, tokenizer_path, template)     # digest and report
chat = ChatTemplate.load(model_dir, template)        # prompt_ids(messages), encode(messages)
rows = tokenise(files, Split.TRAIN, ...)             # rows[i] -> (ids, labels), rows.where(i), rows.report
asked = questions(files, Split.TEST, limit)          # (messages, reference, row)
"""

from datatunerx.data.cache import TokenRows
from datatunerx.data.errors import DataError, Problem, TemplateError
from datatunerx.data.formats import Conversation, Message
from datatunerx.data.inspection import inspect
from datatunerx.data.registry import built_in_names
from datatunerx.data.rows import Question, Row, content_digest, questions, read_rows
from datatunerx.data.templates import ChatTemplate
from datatunerx.data.tokens import tokenise

__all__ = [
    "ChatTemplate",
    "Conversation",
    "DataError",
    "Message",
    "Problem",
    "Question",
    "Row",
    "TemplateError",
    "TokenRows",
    "built_in_names",
    "content_digest",
    "inspect",
    "questions",
    "read_rows",
    "tokenise",
]
