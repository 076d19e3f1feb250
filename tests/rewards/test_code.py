"""Programs in the sandbox: right, wrong, endless, greedy, sly; and how tests are read from a record."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from amauta.base.errors import DataError
from amauta.rewards.called import reward_called
from amauta.rewards.code import CodeTests, program_of, unit_tests
from amauta.rewards.sandbox import Outcome, run

TESTS = ["assert twice(1) == 2", "assert twice(2) == 4"]
GOOD = "def twice(x):\n    return 2 * x\n"
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")


@pytest.mark.parametrize(
    ("program", "passed", "fault"),
    [
        (GOOD, 2, None),
        ("def twice(x): return 2", 1, "AssertionError"),
        ("def half(x): return x", 0, "NameError"),
        ("def twice(", 0, "SyntaxError"),
        ("raise ValueError('no')", 0, "ValueError: no"),
        ("def twice(x): return twice(x)", 0, "RecursionError"),
        ("def twice(x):\n    import sys\n    sys.exit(0)", 0, "SystemExit"),
        ("import os\nos._exit(0)", 0, "exit 0"),
        ("print('x' * 3_000_000)\n" + GOOD, 2, None),
        ("import sys\nassert sys.stdin.read() == ''\n" + GOOD, 2, None),
    ],
)
def test_a_program_passes_what_it_passes(program: str, passed: int, fault: str | None):
    found = run(program, TESTS)
    assert (found.passed, found.tests) == (passed, 2)
    assert found.fault is None if fault is None else fault in (found.fault or "")


def test_a_test_that_fails_does_not_hide_the_next():
    assert run(GOOD, ["assert twice(1) == 3", *TESTS, "1 / 0", "assert True"]).passed == 3


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"], ids=["busy", "idle"])
def test_an_endless_program_is_stopped(program: str):
    began = time.monotonic()
    found = run(program, TESTS, seconds=0.5)
    assert found.passed == 0 and found.fault == "> 0.5 s"
    assert time.monotonic() - began < 10


def test_what_passed_before_an_endless_test_has_passed():
    assert run(GOOD, [TESTS[0], "while True: pass", TESTS[1]], seconds=0.5).passed == 1


@linux
def test_a_greedy_program_is_refused_memory_files_and_files_of_size():
    assert "MemoryError" in (run("x = bytearray(2 ** 30)", ["pass"], memory=256 * 2**20).fault or "")
    assert run("x = bytearray(2 ** 20)", ["pass"], memory=256 * 2**20).passed == 1
    assert "OSError" in (run("open('x', 'wb').write(bytes(2 ** 22))", ["pass"]).fault or "")
    assert "OSError" in (run("held = [open('/dev/null') for _ in range(200)]", ["pass"]).fault or "")


def test_its_limits_cannot_be_raised_again():
    program = ("import resource\n"
               "soft, hard = resource.getrlimit(resource.RLIMIT_CPU)\n"
               "assert (soft, hard) == (3, 3), (soft, hard)\n"
               "assert resource.getrlimit(resource.RLIMIT_NPROC) == (0, 0)\n")  # fmt: skip
    assert run(program, ["pass"], seconds=2.5).fault is None


@linux
def test_without_a_network_nothing_is_reached():
    server = socket.create_server(("127.0.0.1", 0))
    program = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)\n"
    found = run(program, ["pass"])
    server.close()
    if not found.shut:
        pytest.skip("this system lets no process give its network up")
    assert found.passed == 0 and "OSError" in (found.fault or "")


def test_it_works_in_an_empty_folder_that_is_gone_after(tmp_path: Path):
    program = "import os\nassert os.listdir() == []\nopen('left', 'w').write('x')\nraise ValueError(os.getcwd())"
    fault = run(program, ["pass"]).fault or ""
    assert fault.startswith("ValueError: /") and not os.path.exists(fault.removeprefix("ValueError: "))


@linux
def test_it_can_write_nowhere_else(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for program in (f"open({str(kept)!r}, 'w')", f"import os; os.remove({str(kept)!r})"):
        found = run(program, ["pass"])
        if not found.shut:
            pytest.skip("this system lets no process give its files up")
        assert "OSError" in (found.fault or "") and kept.read_text() == "mine"


def test_it_sees_no_environment_and_no_installed_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    assert run("import os\nassert 'A_SECRET' not in os.environ", ["pass"]).fault is None
    assert "ModuleNotFoundError" in (run("import test_code", ["pass"]).fault or "")
    assert "ModuleNotFoundError" in (run("import numpy", ["pass"]).fault or "")


def test_what_a_program_writes_everywhere_passes_nothing():
    """Verdicts that it makes up, in every form, on every open file."""
    program = ("import os, json\n"
               "for n in range(3, 64):\n"
               "    for line in ('true', '[]', '[1, 2]', '[\"x\", 0]', '{\"shut\": 1}', '[[1], 2]', '\\udcff'):\n"
               "        try: os.write(n, line.encode('utf8', 'surrogateescape') + b'\\n')\n"
               "        except OSError: pass\n"
               "os._exit(0)\n")  # fmt: skip
    assert run(program, TESTS).passed == 0


@linux
def test_a_child_left_behind_is_killed():
    program = "import os, time\nchild = os.fork()\nif child == 0:\n    time.sleep(60)\nraise ValueError(child)"
    fault = run(program, ["pass"]).fault or ""
    if "BlockingIOError" in fault:
        return  # it may not even begin one
    state = Path("/proc") / fault.removeprefix("ValueError: ") / "stat"
    end = time.monotonic() + 5
    while state.exists() and ") Z" not in state.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    assert time.monotonic() < end


def test_the_code_of_an_answer():
    assert program_of("Here:\n```python\na = 1\n```\nand\n```\nb = 2\n```\n") == "a = 1\n\nb = 2\n"
    assert program_of("a = 1") == "a = 1"
    assert program_of("```py\nx\n```") == "x\n"
    assert program_of("Say `a` and ``` b") == "Say `a` and ``` b"


def test_the_tests_of_a_record():
    assert unit_tests({"tests": "assert a"}) == ("", ["assert a"])
    assert unit_tests({"test_list": ["x", "y"], "test_setup_code": "import math"}) == ("import math\n", ["x", "y"])
    setup, (test,) = unit_tests({"test": "def check(f):\n    assert f(2) == 4", "entry_point": "twice"})
    assert setup == "\n" and run(GOOD, [test]).passed == 1 and run("def twice(x): return 3", [test]).passed == 0
    for record in ({}, {"tests": []}, {"tests": [1]}, {"test": "x"}):
        with pytest.raises(DataError):
            unit_tests(record)


def test_the_reward_is_the_share_that_passes():
    record = {"tests": [*TESTS, "assert twice(math.pi) > 6"], "test_setup_code": "import math"}
    answers = [f"It is\n```python\n{GOOD}```", "def twice(x): return 2", "no code"]
    assert [CodeTests()([], answer, record) for answer in answers] == [1, 1 / 3, 0]
    assert CodeTests().many([[]] * 3, answers, [record] * 3) == [1, 1 / 3, 0]
    called = reward_called("0.5*code:2")
    assert called.reward == CodeTests(2.0) and called.many is not None
    assert called.many([[]] * 3, answers, [record] * 3) == [0.5, 1 / 6, 0]


def test_the_seconds_are_those_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked: list[float] = []

    def spy(program: str, tests: list[str], *, seconds: float) -> Outcome:
        asked.append(seconds)
        return Outcome(1, 1, None, True)

    monkeypatch.setattr("amauta.rewards.code.run", spy)
    for text in ("code", "code:0.5"):
        assert reward_called(text)([], "x", {"tests": "y"}) == 1
    assert asked == [5.0, 0.5]
