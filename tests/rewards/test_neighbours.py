"""Scores by common sense: what a fair and strict examiner would give, for many writings.

A table maps the ground truth to outcomes, and each outcome to the contents of the answer tag.
"""

import functools
import json

import pytest

from evr1 import rewards
from evr1.rewards import Status, math
from evr1.rewards.formulas import symbolic

RIGHT = (1, 1)
LOOSE = (1, 0)  # right, but not in the form that the prompt asks for
WRONG = (0, 1)
NOTHING = (0, 0)  # wrong or no answer, and not in the asked form: no credit at all
INLINE = {
    **rewards.SCORERS,
    "math": functools.partial(math.score, equal=symbolic.equal_inline),
}
COLOURS = ["Red", "Blue", "Green", "White"]
PHRASES = ["a red car", "a red car turns left", "None of the above", "All of the above"]
NUMBERS = ["3", "5", "3.5", "I"]

# fmt: off
CHOICES = [
    (
        "B",
        COLOURS,
        {
            RIGHT: [
                "B", "b", " B ", "(B)", "[B]", "B.", "B)", "B:", "B。", "Ｂ", "（B）", "B、", '"B"',
            ]
            + ["**B**", "B. Blue", "B) Blue", "(B) Blue", "B: Blue", "B Blue", "B - Blue", "$B$"]
            + ["B. blue", "B. Blue.", "Option B", "option (B)", "Answer: B", "选项B", "答案：B"]
            + [r"\boxed{B}", r"\text{B}", "Choice B", "b)", "B\n", "`B`"],
            LOOSE: [
                "Blue", "blue", "BLUE.", "**Blue**", '"Blue"', "B, because it is not A",
                "B because it is blue", "I think B", "It should be B.", "B. not A",
            ],
            WRONG: ["A", "C", "d", "(A)", "A. Red", "Option C"],
            NOTHING: [
                "E", "Z", "A or B", "B or A", "A, B", "A and B", "B/C", "B and C", "AB", "B, C",
                "A B", "B & C", "either A or B", "A B C D", "B? C?", "B. Red", "A. Blue",
                "Blue or Red",
                "Red and Blue", "Bluebird", "not B", "not A, not C, not D", "В", "β", "1", "2",
                "", "?",
                "A|B", "A+B", "B (or C)", "B, or maybe C", "B; C", "B > C", "all", "A～D", "A-D",
                "A, B, C, D",
            ],
        },
    ),
    (
        "A",
        COLOURS,
        {
            RIGHT: ["A", "a", "A.", "(a)", "A. Red"],
            LOOSE: ["red"],
            NOTHING: ["A dog is running", "a dog", "I", "I see a red car", "А", "Α", "A?B"],
        },
    ),
    (
        "A",
        PHRASES,
        {
            RIGHT: ["A", "A. a red car"],
            LOOSE: ["a red car", "A red car."],
            WRONG: ["B", "B. a red car turns left", "C. None of the above"],
            NOTHING: ["a red car turns left", "None of the above", "red", "a red", "the red car"],
        },
    ),
    ("C", PHRASES, {RIGHT: ["C"], LOOSE: ["None of the above", "none of the above."]}),
    ("None of the above", PHRASES, {RIGHT: ["C"], WRONG: ["D"], NOTHING: ["none"]}),
    ("D", PHRASES, {RIGHT: ["D"], LOOSE: ["All of the above"], NOTHING: ["all", "A, B, C"]}),
    ("A", NUMBERS, {RIGHT: ["A", "A. 3"], LOOSE: ["3"], NOTHING: ["5", "3.5", "3 or 5", "1"]}),
    ("C", NUMBERS, {LOOSE: ["3.5"], NOTHING: ["3", "35"]}),
    (
        "AC",
        [],
        {RIGHT: ["A, C", "C, A", "AC", "A and C", "(A), (C)", "A C"], WRONG: ["A", "A, B, C"]},
    ),
    (
        ["A", "C"],
        COLOURS,
        {RIGHT: ["A,C", "C A"], WRONG: ["A", "C", "A, D"], NOTHING: ["A, A, C", "A, E"]},
    ),
    ("K", [], {RIGHT: ["K", "(k)", "K."], WRONG: ["A", "I", "Z"], NOTHING: ["K or L", "Kiwi"]}),
]

NUMERICAL = {
    "5": {
        RIGHT: ["5", " 5 ", "5.", "5.0", "05", "+5", "5.00", "5.004", "$5", "5 €", "5 apples", "５"]
        + [
            "5 s", "5 seconds", "10/2", "5e0", "$5$", r"\boxed{5}", "**5**", "5 people",
            r"5\text{ cm}",
        ],
        LOOSE: [
            "five", "Five", "about 5", "~5", "≈ 5", "x = 5", "The answer is 5", "five people",
            "五",
        ]
        + ["approximately 5", "There are 5", "there are five cars", "5 (five)", "exactly 5"],
        WRONG: ["6", "4.9", "5.01", "-5", "50", "0.5", "15", "5e1", "1/5"],
        NOTHING: [
            "5 or 6", "4-6", "4 to 6", "5, 6", "1, 2, 3, 4, 5", "5 and 6", "between 4 and 6",
            "nan",
            "inf", "", "many", "5 ± 1", "5/0", "not 5", "at least 5", "5?6", "more than 5", "5+",
            "<6",
        ]
        + ["5 6", "5|6", "(5, 6)", "[5]6", "5..6", "4~6", "0x5", "1 2 3 4 5", "5 if not 6", "≥5"],
    },
    "1234": {
        RIGHT: [
            "1234", "1,234", "1 234", "1,234.0", "1.234e3", "1.234 × 10^3", "1234.0",
            "1\u202f234",
        ],
        WRONG: ["1.234", "1235", "12340"],
        NOTHING: ["1,234,5", "1,23,4", "12,34"],
    },
    "-3": {
        RIGHT: ["-3", "\u22123", "- 3", "–3", "-3.0", "－3"],
        LOOSE: ["minus 3", "minus three", "negative three", "about -3"],
        WRONG: ["3", "+3"],
        NOTHING: ["--3", "-3 or 3", "±3"],
    },
    "0.5": {
        RIGHT: [
            "0.5", ".5", "0.50", "1/2", "50%", "50 percent of it", "50 %", r"\frac{1}{2}",
            r"50\%", "5e-1", "0.5 m",
        ],
        LOOSE: ["about 50%", "half", "fifty percent", "one half"],
        WRONG: ["50", "5", "0.6", "0.05", "5%", "0.5%"],
    },
    "50%": {
        RIGHT: ["50%", "50", "0.5", "50 percent", "1/2"],
        WRONG: ["5%", "500", "0.05", "0.5%", "51%"],
    },
    "50": {RIGHT: ["50", "50%"], WRONG: ["0.5", "0.5%", "5000%"]},
    "0.333": {
        RIGHT: ["0.333", "0.3333", "1/3", "33.3%", "0.33333333"],
        WRONG: ["0.33", "0.34", "0.3", "1/4"],
    },
    "1/3": {RIGHT: ["1/3", "0.3333", "0.333", "2/6", "33.33%"], WRONG: ["0.3", "0.34", "3"]},
    "2.5": {
        RIGHT: ["2.5", "2.50", "5/2", "2 1/2", "2.5 m", "2.5e0", "2.52"],
        LOOSE: ["two and a half", "2 and a half", "two point five"],
        WRONG: ["2", "3", "2.6", "25"],
        NOTHING: ["2,5", "2 to 3"],
    },
    "3 m": {
        RIGHT: ["3 m", "3", "300 cm", "3000 mm", "3 meters", "0.003 km"],
        WRONG: ["3 cm", "300", "3 s", "3 kg"],
    },
    "90 s": {
        RIGHT: ["90", "90 s", "1.5 min", "1.5 minutes"],
        WRONG: ["1.5", "90 min"],
        NOTHING: ["1 to 2 min"],
    },
    "2000000": {
        RIGHT: ["2000000", "2,000,000", "2 million", "2e6", "2×10^6", "2.000.000"],
        LOOSE: ["two million", "about 2 million"],
        WRONG: ["2", "2 billion", "2000"],
    },
    "21": {
        LOOSE: ["twenty-one", "twenty one", "Twenty-One", "二十一"],
        NOTHING: ["twenty, one", "twenty or one", "twenty-eleven"],
    },
    "4": {
        RIGHT: ["4 m²", "4 m2", "4 m^2", "4 m/s", "4 °C", "4°", "4 is the answer", "4个", "4 辆车",
            "4元"]
        + ["4 per cent", "4 USD", '"4"', "[4]", "(4)", "٤", "④", "4 people are visible", "4$"],
        LOOSE: ["I count 4", "I can see 4 cars", "We see 4", "Total: 4", "a total of 4", "共4辆",
            "一共4个", "= 4"]
        + ["N = 4", "US$4", "RMB 4", "4 (four)", "四个", "4 people who are clearly visible here",
            "大约4"],
        WRONG: ["4 thousand", "42", "4.5"],
        NOTHING: ["4²", "2²", "4 is wrong", "I do not think it is 4", "4 out of 5", "4 4", "IV",
            "4:00", "4^1"],
    },
    "1.5": {RIGHT: ["1½", "1 1/2", "3/2"], LOOSE: ["one and a half", "1 and a half hours"],
        WRONG: ["½", "11/2"]},
    "0.001": {RIGHT: ["10⁻³", "10^-3", "1e-3", "0.1%"]},
    "three": {RIGHT: ["3"], LOOSE: ["three"], WRONG: ["4"]},
    "0": {
        RIGHT: ["0", "0.0", "-0", "0%"],
        LOOSE: ["zero", "零"],
        WRONG: ["1", "0.001"],
        NOTHING: ["", "nothing or 1"],
    },
    "1e400": {
        RIGHT: ["1e400", "10^400"],
        WRONG: ["1e399", "9" * 400],
        NOTHING: ["1e401", "inf", "9**9**9", "9^9^9"],
    },
}

REGRESSION = {
    "10": {
        (1, 1): ["10", "10.0", "10 m", "1e1", "10.4", "9.6", "10 meters"],
        (1, 0): ["about 10", "ten", "roughly 10 m"],
        (0.9, 1): ["11", "9"],
        (0.7, 1): ["12", "8"],
        (0.1, 1): ["15", "5"],
        (0, 1): ["20", "-10", "0", "100", "1e300"],
        (0, 0): ["9-11", "9 or 10", "nan", "inf", "-inf", "1e999", "", "ten or eleven", "10, 11"],
    },
    "-4": {(1, 1): ["-4", "\u22124"], (0, 1): ["4", "0"], (0.6, 1): ["-3", "-5"]},
    "0": {(1, 1): ["0", "0.0"], (0, 1): ["0.1", "1e-9"]},
}

BOOLEAN = {
    "Yes": {
        RIGHT: [
            "Yes", "yes", "The answer is yes", "YES", "Yes.", "yes!", "True", "true", "TRUE",
            "(yes)", "**Yes**", "是", "Ｙｅｓ", "对",
        ]
        + ['"Yes"', "yes\n", " Yes "],
        LOOSE: [
            "1", "Yes, it is", "Yes, because the light is red", "Yes: the man waves",
            "I think yes", "yes it does", "I believe it is true",
        ]
        + ["Yes, there is no doubt", "I think yes it does", "I think so"],
        WRONG: ["No", "false", "否", "不是", "no."],
        NOTHING: [
            "No, yes", "yes or no", "Yes/No", "Yes and no", "maybe", "", "I don't think so",
            "not yes", "2",
            "not no", "y e s", "yesno", "Yes. No.", "Yes, no", "Yes (or no)", "eyes",
            "yesterday", "unknown",
            "Yes, actually no", "neither", "Yes? No?", "Yes|No", "true or false", "Yes, but no",
            "不对", "是不是",
        ],
    },
    "No": {
        RIGHT: ["No", "no", "False", "否", "不是", "NO!", "错误"],
        LOOSE: [
            "0", "No, it is not", "No, he never does", "I don't think so", "no it does not",
            "I think not",
        ],
        WRONG: ["Yes", "true", "是"],
        NOTHING: [
            "nothing", "nope?yes", "No. Yes.", "not yes", "know", "noyes", "no or yes",
            "Not sure", "No idea",
        ],
    },
    "False": {RIGHT: ["no", "false"], LOOSE: ["0"], WRONG: ["yes"]},
    "1": {RIGHT: ["Yes"], LOOSE: ["1"], WRONG: ["No"]},
}

OCR = {
    "Hello World": {
        RIGHT: [
            "Hello World", "hello world", "HELLO WORLD", "Hello  World", "Hello\nWorld",
            "Ｈｅｌｌｏ World",
        ],
        (0.5, 1): ["Hello", "World", "Hello World foo", "Hello word"],
        WRONG: ["HelloWorld", "foo bar", "World Hello", "Hello World " * 5],
        NOTHING: ["", " "],
    },
    "停车": {
        RIGHT: ["停车", "停 车", " 停车 "],
        (0.5, 1): ["停", "停在", "停车场"],
        WRONG: ["车停停车车停"],
    },
    "12:30": {RIGHT: ["12:30", "12：30"], WRONG: ["12 30", "1230", "12:31"]},
    "a/b <c>": {RIGHT: ["a/b <c>", "A/B <C>"], (0.5, 1): ["a/b c", "a/b"]},
    "$5.99": {RIGHT: ["$5.99", "＄5.99"], WRONG: ["5.99", "$5.98"]},
    "Café": {RIGHT: ["Café", "Cafe\u0301", "CAFÉ"], WRONG: ["Cafe"]},
    "Straße": {RIGHT: ["Straße", "STRASSE"]},
    "It's \u201cnew\u201d": {RIGHT: ['It\'s "new"', 'It\u2019s "new"']},
    "مرحبا بالعالم": {RIGHT: ["مرحبا بالعالم"], (0.5, 1): ["مرحبا"]},
    "สวัสดี": {RIGHT: ["สวัสดี"]},
}

MATH = {
    "42": {
        RIGHT: [
            "42", "42.0", "$42$", "x = 42", r"\boxed{42}", "42.", r"\(42\)", "84/2", "４２",
            "x=42",
        ],
        WRONG: ["41", "420", "-42", "4.2", "x", "\\infty"],
        NOTHING: [""],
    },
    "1/2": {
        RIGHT: [
            "1/2", "0.5", r"\frac{1}{2}", r"\frac12", r"\dfrac{2}{4}", "50%", "2/4", ".5",
            r"\tfrac{1}{2}",
        ],
        WRONG: ["2", "1/3", "0.49", r"\frac{2}{1}", "-1/2"],
    },
    "-\\frac{3}{2}": {
        RIGHT: ["-3/2", "-1.5", r"-\frac{3}{2}", r"\frac{-3}{2}"],
        WRONG: ["3/2", "-2/3"],
    },
    "2\\sqrt{2}": {
        RIGHT: [r"2\sqrt{2}", r"\sqrt{8}", r"2 \sqrt 2", r"\frac{4}{\sqrt{2}}"],
        WRONG: [r"\sqrt{2}", "2", "8"],
    },
    "(x+1)^2": {
        RIGHT: ["(x+1)^2", "x^2+2x+1", "(1+x)^2", "1 + 2x + x^2"],
        WRONG: ["x^2+1", "x^2-2x+1", "(x+1)^3", "x"],
    },
    "\\pi": {RIGHT: [r"\pi", r"$\pi$", "π"], WRONG: ["3", "2\\pi", "3.1"]},
    "(1, 2)": {RIGHT: ["(1, 2)", "(1,2)", r"\left(1, 2\right)"], WRONG: ["(2, 1)", "(1, 3)"]},
    "\\{1, 2\\}": {RIGHT: [r"\{1, 2\}", r"\{2, 1\}"], WRONG: [r"\{1, 3\}", "1", r"\{1, 2, 3\}"]},
    "[0, 1]": {RIGHT: ["[0, 1]", "[0,1]"], WRONG: ["(0, 1)", "[0, 2]"]},
    "3 and 4": {RIGHT: ["3, 4", "3 and 4", "3 or 4"], WRONG: ["3", "4", "3, 5", "7"]},
    "B": {RIGHT: ["B", "b", "(B)", r"\text{B}"], WRONG: ["A", "C", "A or B"]},
    "1,000": {RIGHT: ["1000", "1,000", "10^3", r"1{,}000"], WRONG: ["1", "100"]},
    "3": {WRONG: ["\\pm 3", "3, 4", "3 or 4", "[3, 4]", r"\{3, 4\}", "x = x", "x > 0", "9**9**9"]},
    "x^2+1": {RIGHT: ["x²+1", "x**2+1", "1+x^2"], WRONG: ["x2+1", "x^2"]},
    "8": {RIGHT: ["8", "2³", "2^3", "2·4", "2×4", "16÷2", "8 cm", "8cm", "8°"], WRONG: ["23",
        "8x", "8 pi", "8ab"]},
    "10 cm^2": {RIGHT: ["10", "10 cm²", r"10\text{ cm}^2", "10 square centimetres"],
        WRONG: ["100"]},
    "\\frac{\\pi}{4}": {RIGHT: ["pi/4", "π/4", r"\frac{1}{4}\pi", "0.785398"], WRONG: ["4/pi",
        "0.78", "pi"]},
    "3.14": {RIGHT: ["3.14", "\\pi", "pi", "157/50"], WRONG: ["3.1", "3", r"\sqrt{10}"]},
    "0.33": {RIGHT: ["1/3", r"\frac13", "0.333", "33%"], WRONG: ["1/4", "0.3"]},
    "x=1, y=2": {RIGHT: ["x=1,y=2", "y=2, x=1", "(1, 2)"], WRONG: ["x=2, y=1", "x=1"]},
    "x=1 or x=2": {RIGHT: ["x=2 or x=1", "1, 2", "1 and 2"], WRONG: ["1", "1, 3"]},
    "x > 3": {RIGHT: ["x>3", "3 < x", r"(3, \infty)"], WRONG: ["x < 3", "x >= 3", "3", "4"]},
    "y=2x+1": {RIGHT: ["y = 2x + 1", "2x+1", "1+2x"], WRONG: ["2x", "y=2x-1"]},
    "No solution": {RIGHT: ["no solution", r"\text{No solution}"], WRONG: ["0", "one solution"]},
    "120^\\circ": {RIGHT: ["120", "120°", "120 degrees", r"120^{\circ}"], WRONG: ["60", "12"]},
    "3\\sqrt{3}": {RIGHT: ["3√3", "3 √3", "√27", "3sqrt(3)", "3*sqrt(3)", r"\sqrt{27}"],
        WRONG: ["3", "√3", "9"]},
    "7\\frac{1}{2}": {RIGHT: ["7.5", "15/2", "7 1/2", r"7 \frac{1}{2}", "7½"], WRONG: ["71/2",
        "7"]},
    "2^{10}": {RIGHT: ["1024", "2^{10}", "2^10"], WRONG: ["20", "2^9"]},
}


def _time(a, b):
    return json.dumps({"time": [a, b]})


TIME = {
    _time(10, 20): {
        RIGHT: [
            _time(10, 20), _time(10.0, 20.0), '{"time":[10,20]}', '{ "time" : [ 10, 20 ] }',
            _time("10", "20"),
        ]
        + ['{"time": [10, 20], "note": "x"}', '\n{"time": [1e1, 2e1]}\n'],
        LOOSE: [
            "[10, 20]", "from 10 to 20 seconds", "10-20", "10 - 20 s", "10s to 20s", "10 to 20",
            "00:10-00:20",
            "between 10 and 20 seconds", "00:00:10 - 00:00:20",
            '```json\n{"time": [10, 20]}\n```', "10s–20s", "10~20秒",
            '{"time": {"start": 10, "end": 20}}', '{"start": 10, "end": 20}',
            "The event is from 10.0s to 20.0s.", "从10秒到20秒",
            '{"timestamp": [10, 20]}', "(10, 20)", "0:10 to 0:20", "10 seconds to 20 seconds",
            "start: 10, end: 20", "[10, 20]s",
            "10.0 → 20.0", "{'time': [10, 20]}", '{"time": [[10, 20]]}', '{"time": "10-20"}',
            '{"time": ["10s", "20s"]}',
        ],
        (0.5, 1): [_time(10, 15), _time(15, 20), _time(5, 25), _time(0, 20), _time(10, 30)],
        (0.1, 1): [_time(0, 100), _time(10, 11)],
        WRONG: [
            _time(20, 30), _time(0, 10), _time(-5, 5), _time(0, 1e308), _time(-1e308, 1e308),
        ],
        NOTHING: [
            _time(20, 10), _time(15, 15),  # nothing is covered
            '{"time": 10}', '{"time": [10]}', '{"time": [10, 20, 30]}', '{"time": [NaN, 20]}',
            '{"time": [10, Infinity]}',
            '{"time": [10, 20]', '{"time": [true, 20]}', '{"time": []}', "{}", "10", "",
            "from 10 to 20 or from 30 to 40",
            '{"time": ["ten", 20]}', '{"time": null}', "10-20-30", "10, 20, 30",
            "from 0 to 5 and from 10 to 20", "[[10, 20], [0, 5]]",
        ],
    },
    _time(5, 5): {RIGHT: [_time(5, 5)], WRONG: [_time(5, 6), _time(0, 10)]},
    _time(90, 125.5): {
        LOOSE: ["1:30 - 2:05.5", "01:30 to 02:05.5", "00:01:30.0 - 00:02:05.5", "90-125.5"]
    },
}


def _box(*sides):
    return json.dumps({"boxes": list(sides)})


BOX = {
    _box(0, 0, 10, 10): {
        RIGHT: [
            _box(0, 0, 10, 10), _box(0.0, 0.0, 10.0, 10.0),
            _box("0", "0", "10", "10"),
            '{"boxes":[0,0,1e1,1e1]}',
        ],
        LOOSE: [
            "[0, 0, 10, 10]", "[[0, 0, 10, 10]]", '{"bbox_2d": [0, 0, 10, 10]}',
            '{"boxes": [[0, 0, 10, 10]]}',
            '```json\n{"boxes": [0, 0, 10, 10]}\n```',
            '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}]', "(0, 0, 10, 10)",
            '{"box": [0, 0, 10, 10]}', '{"boxes": [0, 0, 10, 10]} as asked',
            "{'boxes': [0, 0, 10, 10]}", "(0, 0), (10, 10)",
        ]
        + ['{"x1": 0, "y1": 0, "x2": 10, "y2": 10}', "[[0, 0], [10, 10]]", "0, 0, 10, 10"],
        (0.5, 1): [_box(0, 0, 10, 5), _box(0, 0, 5, 10), _box(0, 0, 20, 10)],
        (25 / 175, 1): [_box(5, 5, 15, 15)],
        (0.01, 1): [_box(0, 0, 1, 1), _box(-45, -45, 55, 55)],
        WRONG: [
            _box(20, 20, 30, 30), _box(0, 0, 1e308, 1e308),
        ]
        + [_box(-1e308, -1e308, 1e308, 1e308), _box(10, 0, 20, 10)],
        NOTHING: [
            _box(10, 10, 0, 0), _box(5, 5, 5, 5), _box(0, 10, 10, 0), _box(0, 0, 0, 10),
            '{"boxes": [0, 0, 10]}', '{"boxes": [0, 0, 10, 10, 20]}',
            '{"boxes": [NaN, 0, 10, 10]}', "{}", "", "[]",
            '{"boxes": [[0, 0, 10, 10], [1, 1, 2, 2]]}', '{"boxes": []}',
            '{"boxes": [true, 0, 10, 10]}', '{"boxes": "all"}',
            '{"boxes": [0, 0, Infinity, 10]}', "[[0,0,10,10],[5,5,9,9]]",
            '{"boxes": {"1": [0, 0, 10, 10]}}', "left side",
        ],
    },
}

SQUARE = [0, 0, 10, 10]
HALF = [0, 0, 10, 5]


def _tube(**boxes):
    return json.dumps({"boxes": {k.lstrip("_"): v for k, v in boxes.items()}})


TUBE = {
    _tube(_1=SQUARE, _2=SQUARE): {
        RIGHT: [
            _tube(_1=SQUARE, _2=SQUARE), _tube(_2=SQUARE, _1=SQUARE),
            '{"boxes":{"1.0":[0,0,10,10],"02":[0,0,10,10]}}',
        ]
        + ['{"boxes": {"1s": [0, 0, 10, 10], "2s": [0, 0, 10, 10]}}'],
        LOOSE: [
            '{"bboxes": {"1": [0, 0, 10, 10], "2": [0, 0, 10, 10]}}',
            "```\n" + _tube(_1=SQUARE, _2=SQUARE) + "\n```",
            '{"1": [0, 0, 10, 10], "2": [0, 0, 10, 10]}',
            '{"boxes": {"1": [[0, 0, 10, 10]], "2": [[0, 0, 10, 10]]}}',
        ],
        (0.5, 1): [
            _tube(_1=SQUARE), _tube(_2=SQUARE), _tube(_1=HALF, _2=HALF),
            _tube(_1=SQUARE, _2=[20, 20, 30, 30]),
        ],
        (0.25, 1): [_tube(_1=HALF), _tube(**{f"_{i}": SQUARE for i in range(8)})],
        (2 / 3, 1): [_tube(_1=SQUARE, _2=SQUARE, _3=SQUARE)],
        WRONG: [
            _tube(_3=SQUARE), _tube(_1=[0, 0, 1e308, 1e308]),
        ],
        NOTHING: [
            _tube(_1=[10, 10, 0, 0], _2=[5, 5, 5, 5]),
            '{"boxes": {}}', '{"boxes": [0, 0, 10, 10]}', "{}", "[]", "",
            '{"boxes": {"one": [0, 0, 10, 10]}}', "not json",
            '{"boxes": {"nan": [0, 0, 10, 10]}}', '{"boxes": {"1": [NaN, 0, 10, 10]}}',
            '{"boxes": {"1": "bad"}}',
        ],
    },
}


def _both(a, b, **boxes):
    return json.dumps({"time": [a, b], "boxes": {k.lstrip("_"): v for k, v in boxes.items()}})


BOTH = {
    _both(8, 11, _9=SQUARE, _10=SQUARE): {
        RIGHT: [_both(8, 11, _9=SQUARE, _10=SQUARE), _both(8.0, 11.0, _10=SQUARE, _9=SQUARE)],
        (0.75, 1): [_both(8, 11, _9=SQUARE), _both(8, 11, _9=HALF, _10=HALF)],
        (0.5, 1): [
            _both(8, 11, _1=SQUARE), _both(20, 30, _9=SQUARE, _10=SQUARE),
        ],
        (0.5, 0): [
            _both(11, 8, _9=SQUARE, _10=SQUARE), _both(8, 11, _9=[10, 10, 0, 0]),
            '{"time": [8, 11]}', "from 8 to 11 seconds", '{"time": [8, 11], "boxes": {}}',
            "[8, 11]",
        ],
        (0, 0): ["{}", "", '{"time": 8}', '{"boxes": {}}'],
        (0.5 + 1 / 3, 1): [_both(8, 11, _9=SQUARE, _10=SQUARE, _11=SQUARE)],
    },
    '{"time": [8, 11]}': {
        RIGHT: [_time(8, 11), _both(8, 11, _9=SQUARE)],
        LOOSE: ["from 8 to 11 s"],
    },
    '{"time": [8, 11], "boxes": {}}': {RIGHT: [_time(8, 11)], (0.5, 1): [_time(8, 9.5)]},
}

OPEN = {
    "a red car": {
        RIGHT: [
            "a red car", "A red car.", "A RED CAR", " a  red\ncar ", "a red cars", "Ａ red car",
        ],
        WRONG: ["blue bicycle", "dog", "?!x", "аbсd"],
        NOTHING: ["", "...", "!!!"],
        ((0.8 + 2 / 3 + 0.8) / 3, 1): ["red car", "a red"],
    },
    "cat": {RIGHT: ["cat", "Cat", "cats", "cat!"], WRONG: ["dog", "catalogue"]},
    "一只猫": {
        RIGHT: ["一只猫", "一只猫。", "一 只 猫"],
        WRONG: ["狗"],
        ((0.8 + 2 / 3 + 0.8) / 3, 1): ["只猫"],
    },
    "5": {RIGHT: ["5"], WRONG: ["6", "five"]},
    "été": {RIGHT: ["été", "e\u0301te\u0301", "ÉTÉ"], WRONG: ["ete"]},
    "Привет, мир": {RIGHT: ["привет мир", "ПРИВЕТ МИР!"], WRONG: ["пока"]},
}

PREFERENCE = {
    "Response 1": {
        RIGHT: [
            "Response 1", "response 1", "Response A", "A", "1", "first", "the first response",
            "Response 1.", "**1**",
            "Answer 1", "Assistant A", "(A)", "Response one", "Model A", "Ｒesponse 1", "[[A]]",
            "Response  1", '"Response 1"',
        ],
        LOOSE: ["Response 1 is better than Response 2", "Response 1 is better", "A is better"],
        WRONG: ["Response 2", "B", "Tie", "second", "2"],
        NOTHING: [
            "Response 1 and Response 2", "Response 1 or 2", "1, 2", "both", "neither",
            "identity", "", "Response 3",
            "12", "Response 1/Response 2", "not Response 2", "A and B",
            "Response 1 is not better", "1 2", "tie or 1", "AB", "equal", "0",
        ],
    },
    "Tie": {
        RIGHT: ["Tie", "tie", "TIE."],
        LOOSE: ["equal", "0", "both equal", "A tie", "equally good", "same", "[[C]]"],
        WRONG: ["Response 1", "2"],
        NOTHING: ["identity", "tier", "untied", "neither", "patience", "tie, 1"],
    },
    "2": {
        RIGHT: ["Response B", "2", "second"],
        WRONG: ["1"],
        LOOSE: ["Response 2 is better than Response 1"],
    },
}

TABLES = {
    "numerical": NUMERICAL,
    "regression": REGRESSION,
    "boolean": BOOLEAN,
    "ocr": OCR,
    "math": MATH,
    "temporal grounding": TIME,
    "spatial grounding": BOX,
    "tracking": TUBE,
    "spatial-temporal grounding": BOTH,
    "open-ended": OPEN,
    "preference": PREFERENCE,
}
CASES = [
    (kind, content, truth, (), outcome)
    for kind, table in TABLES.items()
    for truth, outcomes in table.items()
    for outcome, contents in outcomes.items()
    for content in contents
] + [
    ("multiple choice", content, truth, tuple(options), outcome)
    for truth, options, outcomes in CHOICES
    for outcome, contents in outcomes.items()
    for content in contents
]
# fmt: on


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_neighbour(case):
    kind, content, truth, options, (accuracy, form) = case
    row = {"problem_type": kind, "answer": truth, "options": options}
    result = rewards.score(f"<answer>{content}</answer>", row, scorers=INLINE)
    assert result.status in (Status.OK, Status.UNPARSED)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.format == form
