"""The model card of an export: what it is, what made it, how good it is, how to use it."""

from datatunerx.resources.enums import ExportFormat
from datatunerx.resources.export import ExportCheck
from datatunerx.runs.plan import ExportPlan

_HUB = "hf://"
_USE = {
    ExportFormat.HF: 'AutoModelForCausalLM.from_pretrained("FOLDER")  # transformers',
    ExportFormat.ADAPTER: 'PeftModel.from_pretrained(base, "FOLDER")  # peft, on the base named below',
    ExportFormat.GGUF: "llama-cli -m FOLDER/model.gguf --jinja  # llama.cpp",
    ExportFormat.OLLAMA: "ollama create NAME -f FOLDER/Modelfile",
}


def card(plan: ExportPlan, kind: str, check: ExportCheck) -> str:
    """README.md with the front matter that hubs read. `kind` is how the weights are stored."""
    head = ["---", "library_name: " + ("peft" if plan.to is ExportFormat.ADAPTER else "transformers")]
    if plan.base_source.startswith(_HUB):
        head.append(f"base_model: {plan.base_source.removeprefix(_HUB).partition('@')[0]}")
    if plan.license:
        head.append(f"license: {plan.license}")
    head.append("---")
    rows = [*((fact.name, fact.value) for fact in plan.facts), ("Form", f"{plan.to.value} ({kind})")]
    return "\n".join([
        *head, "", f"# {plan.checkpoint}", "", "Fine-tuned with datatunerx.", "",
        "    " + _USE[plan.to].replace("NAME", plan.checkpoint), "",
        "## What made it", "", "| | |", "|---|---|", *(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows), "",
        "## Parameters", "", "| | |", "|---|---|",
        *(f"| {_cell(name)} | {_cell(str(value))} |" for name, value in sorted(plan.parameters.items())), "",
        "## Checked", "", in_words(check), "",
    ])  # fmt: skip


def in_words(check: ExportCheck) -> str:
    """What was checked, as one sentence."""
    same = check.prompts - check.differing
    return (
        f"Against base + adapter in float32: {same} of {check.prompts} greedy answers are the same"
        + (f" ({check.differing / check.prompts:.0%} differ)" if check.differing else "")
        + f", logits differ by at most {check.max_logit_difference or 0.0:.3g}; "
        "its own tokenizer and template write each prompt token by token alike."
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
