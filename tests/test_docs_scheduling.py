"""The page on scheduling: one rule, one sentence, one example; and every example is so."""

import doctest
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.scheduling_examples import Told
from tests.test_docs import shown_commands

PAGE = Path(__file__).parent.parent / "docs" / "scheduling.md"
TEXT = PAGE.read_text()
RULES = TEXT.split("\n## What is asked\n", 1)[1]
RULE = re.compile(r"^\*\*(?P<name>[^*]+)\.\*\* ", re.MULTILINE)
BLOCK = re.compile(r"^```pycon\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


class Rule(NamedTuple):
    """One rule of the page: what it is called, its sentence, its examples, and its line."""

    name: str
    sentence: str
    examples: list[str]
    line: int


def rules() -> list[Rule]:
    found = []
    for piece in re.split(r"^(?=\*\*[^*]+\.\*\* |#)", RULES, flags=re.MULTILINE):
        match = RULE.match(piece)
        if match is None:
            continue
        sentence = " ".join(piece[match.end() :].split("\n\n", 1)[0].split())
        examples = [block["text"] for block in BLOCK.finditer(piece)]
        line = TEXT[: TEXT.index(piece)].count("\n") + 1
        found.append(Rule(match["name"], sentence, examples, line))
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_the_example_is_so(rule: Rule) -> None:
    """On a farm of its own, word by word."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    for example in rule.examples:
        words = dict[str, object](Told().words())
        test = doctest.DocTestParser().get_doctest(example, words, rule.name, str(PAGE), rule.line)
        assert test.examples
        runner.run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_a_rule_is_one_sentence_with_an_example(rule: Rule) -> None:
    assert len(rule.examples) == 1, "each rule has one example"
    assert re.search(r"\.( \(`[^`]+`\))?$", rule.sentence) or rule.sentence.endswith("."), rule.sentence
    assert not re.search(r"[.!?] +[A-Z]", re.sub(r"`[^`]*`", "", rule.sentence)), "more than one sentence"
    lines = rule.examples[0].splitlines()
    assert any(not line.startswith((">>>", "...")) for line in lines), "an example that shows nothing"


def test_the_page_has_rules_enough_and_no_example_without_one() -> None:
    found = rules()
    assert len(found) >= 35
    assert len({rule.name for rule in found}) == len(found)
    assert sum(len(rule.examples) for rule in found) == len(BLOCK.findall(RULES))
    bold = re.findall(r"^\*\*", RULES, re.MULTILINE)
    assert len(bold) == len(found), "something looks like a rule and is none"


def test_every_word_is_explained() -> None:
    """At the top of the page; and no word is explained that there is not."""
    top = TEXT.split("\n## What is asked\n", 1)[0]
    explained = set(re.findall(r"^\| `(\w+)\(", top, re.MULTILINE))
    assert explained == set(Told().words())
    for word in explained:
        assert re.search(rf"\b{word}\(", RULES), f"{word} is never used"


def test_commands_are_named_and_are_looked_at_with_those_of_all_pages() -> None:
    named = [line for page, line in shown_commands() if page == "docs/scheduling.md"]
    assert len(named) >= 20
