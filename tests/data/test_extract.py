from decimal import Decimal

import pytest

from amauta.data.extract import decimal, label_in, number_in, same_number, words_in


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 9.", "9"),
        ("5 + 2*3 = 11", "11"),
        ("23-20+6", "6"),
        ("so 3 - 20", "20"),  # a minus between numbers is no sign
        ("that is -3 degrees", "-3"),
        ("(7)-2", "2"),
        ("= −4", "-4"),
        ("it costs $1,234.50.", "1234.50"),
        ("The answer is $1,234.50. Twice that is 2,469.", "1234.50"),
        ("The answer is 5. No, the answer is: 7", "7"),
        ("The answer is **12**.", "12"),
        ("the ANSWER IS = -.5%", "-.5"),
        ("Therefore, the answer is 84 + 146 = 230. There are 230 for 4.", "230"),
        ("The answer is 3*-2 = -6, see 7", "3"),  # no plain sum: the number that follows
        ("The answer is $5.50 - $2 × 2 = $1.50", "1.50"),
        ("The answer is 9 = 10 - 1", "9"),
        ("The answer is not clear, but 8 fits", "8"),
        ("1,2 and 3", "3"),
        ("12,345,678 people", "12345678"),
        ("no number", None),
        ("", None),
        ("-", None),
    ],
)
def test_the_number_of_a_text(text, number):
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("9", "9.0", True), ("$1,000", "1000", True), ("50%", "50", True), ("9.", "9", True), ("27", "9", False),
     (None, "9", False), ("nine", "nine", False), ("NaN", "NaN", False), ("0.1", "0.10", True),
     ("0.30000000000000004", "0.3", False)],
)  # fmt: skip
def test_numbers_are_compared_as_decimals(one, other, same):
    assert same_number(one, other) is same


def test_decimals():
    assert decimal(" 1,234.5 ") == Decimal("1234.5") and decimal("inf") is None and decimal("x") is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" Positive", "Positive"),
        ("negative.\n\nNext", "Negative"),
        ("The mood is neutral, I think.", "Neutral"),
        ("Neither positive nor negative", None),
        ("positive, not negative", "Positive"),
        ("Positive? No. The answer is negative.", "Negative"),
        ("Positively", None),
        ("", None),
    ],
)
def test_the_label_of_a_text(text, label):
    assert label_in(("Positive", "Negative", "Neutral"))(text) == label


def test_a_label_within_another():
    find = label_in(("no", "no one", "C++"))
    assert find("no one came") == "no one" and find("no, thanks") == "no" and find("I like C++ most") == "C++"


@pytest.mark.parametrize(
    ("text", "words"),
    [("\n Lima.\nMore", "Lima"), ("x\nThe answer is the Andes.\ny", "the Andes"), ("  \n", None), (".", None)],
)
def test_the_words_of_a_text(text, words):
    assert words_in(text) == words
