import re

import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.template import frame

CHAT = "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }} </{{ m.role }}>{% endfor %}<assistant> "


@pytest.fixture
def chat_tokenizer(byte_tokenizer):
    """It puts a start token before every text, and its chat template writes one too, as Llama 3's does."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_tokenizer.backend_tokenizer.to_str()),
        bos_token="<s>",
        chat_template=CHAT,
    )
    special = [("<s>", made.bos_token_id)]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=special)
    return made


def test_base_puts_nothing_around(byte_tokenizer):
    assert (frame(byte_tokenizer, "base").before, frame(byte_tokenizer, "base").after) == ("", "")


def test_chat_is_the_tokenizers_own_and_the_prefix_follows_the_assistants_turn(generator, chat_tokenizer):
    made = generator("niah_single_1", 4096, tokenizer=chat_tokenizer, template="chat").sample(0)
    assert made.prompt.startswith("<s><user> A special magic number")
    assert made.prompt.endswith("in the provided text? </user><assistant> ")
    assert made.ids[0] == chat_tokenizer.bos_token_id and made.ids.count(made.ids[0]) == 1
    assert 0.99 * 4096 <= len(made.ids) + made.tokens_to_generate <= 4096


def test_start_token_comes_first_and_counts_where_the_template_writes_none(generator, chat_tokenizer):
    made = generator("niah_single_1", 4096, tokenizer=chat_tokenizer).sample(0)
    assert made.ids[0] == chat_tokenizer.bos_token_id and made.ids.count(made.ids[0]) == 1
    assert not made.prompt.startswith("<s>")
    for length in range(1000, 1060):
        made = generator("niah_single_1", length, tokenizer=chat_tokenizer).sample(0)
        assert len(made.ids) + made.tokens_to_generate <= length


def test_example_of_variable_tracking_stands_inside_the_users_turn(generator, chat_tokenizer):
    made = generator("vt", 8192, tokenizer=chat_tokenizer, template="chat").sample(0)
    assert made.prompt.startswith("<s><user> Memorize and track") and made.prompt.count("<user>") == 1


def test_compat_example_of_common_words_is_a_turn_of_its_own(generator):
    """So it is in NVIDIA's prompts at c3f5e3b; hardened mode keeps it inside the user's turn."""
    template = "[INST] {task_template} [/INST]"
    compat, hardened = (
        generator("cwe", 8192, template=template, mode=mode).sample(0) for mode in ("compat", "hardened")
    )
    assert re.match(
        r"\[INST\] Below is .+\? \[/INST\] Answer: The top 10 .+ 10\. \S+\n\[INST\] Below", compat.prompt, re.S
    )
    assert compat.prompt.count("[INST]") == compat.prompt.count("[/INST]") == 2
    assert hardened.prompt.count("[INST]") == 1
    for made in (compat, hardened):
        begin, end = made.context
        assert made.prompt[:begin].endswith("appear most often.\n") and made.prompt[begin:].startswith("1. ")
        assert made.prompt[end:].startswith("\nQuestion: What are the 10 most common words")


def test_text_is_a_template(generator):
    made = generator("fwe", 1024, template="[INST] {task_template} [/INST]").sample(0)
    assert made.prompt.startswith("[INST] Read the following") and made.prompt.endswith("coded text? [/INST]")


@pytest.mark.parametrize("template", ["llama", "{task_template} {task_template}", ""])
def test_template_without_one_place_for_the_task_is_refused(byte_tokenizer, template):
    with pytest.raises(EvaluationError, match=r"give base, chat or a text with \{task_template\}"):
        frame(byte_tokenizer, template)


def test_tokenizer_without_a_chat_template_is_refused(byte_tokenizer):
    with pytest.raises(EvaluationError, match="has no chat template"):
        frame(byte_tokenizer, "chat")


def test_chat_template_that_refuses_is_one_clear_line(byte_tokenizer):
    refusing = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer.backend_tokenizer, chat_template="{{ raise_exception('system turn first') }}"
    )
    with pytest.raises(EvaluationError, match="refuses one user turn"):
        frame(refusing, "chat")
